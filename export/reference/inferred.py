"""What an export knows about a foreign model, and where from: printed as a table and recorded in the bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from stageproof.runtime.labels import ASSUMED as ASSUMED_ORDER
from stageproof.runtime.labels import ORIGINS

if TYPE_CHECKING:
    from stageproof.runtime.preprocess import InputSpec
    from stageproof.train.foreign.class_order import ClassOrder

KEY = "inferred"
"""Key of the table in the provenance of a manifest."""
FROM_TENSORS = "tensors"
FROM_OPTION = "option"
FROM_FILE = "file"
ASSUMED = "assumed"


@dataclass(frozen=True)
class Fact:
    """One property of the model."""

    what: str
    value: str
    source: str
    """``tensors``: their names and shapes; ``file``: its metadata; ``option``; or ``assumed``, with a reason."""


def input_facts(spec: InputSpec, size: str, normalisation: str) -> list[Fact]:
    """Input size and normalisation. size, normalisation: their sources."""
    values = ", ".join(f"{value:g}" for value in spec.mean), ", ".join(f"{value:g}" for value in spec.std)
    return [
        Fact("input size", f"{spec.height} × {spec.width}", size),
        Fact("normalisation", f"mean {values[0]}; std {values[1]}", normalisation),
    ]


def class_facts(order: ClassOrder) -> list[Fact]:
    """Classes in the order of the outputs, their clinical order and the positive ones."""
    source = (
        f"{ASSUMED}: alphabetical, as ImageFolder sorts; if not, --labels"
        if order.origin == ASSUMED_ORDER
        else ORIGINS[order.origin]
    )
    clinical = f"{ASSUMED}: that of the outputs; if not, give --classes" if order.clinical_order_assumed else "classes"
    return [
        Fact("outputs", ", ".join(order.labels), source),
        Fact("clinical order", ", ".join(order.classes.names), clinical),
        Fact("positive", ", ".join(order.classes.positive), "label set"),
    ]


def record(facts: Sequence[Fact]) -> list[dict[str, str]]:
    """The facts, JSON-ready."""
    return [asdict(fact) for fact in facts]


def table(provenance: Mapping[str, Any]) -> list[str]:
    """The lines of the table of a manifest's provenance; [] for a run, or a bundle that records none."""
    rows = provenance.get(KEY)
    if not isinstance(rows, list):
        return []
    lines = []
    for row in rows:
        text = f"{row['what']:<16}{row['value']} ({row['source']})"
        lines += wrap(text, 79, subsequent_indent=" " * 16, break_long_words=False, break_on_hyphens=False)
    return lines


def assumptions(provenance: Mapping[str, Any]) -> str:
    """A sentence on what is assumed; empty if nothing is."""
    rows = provenance.get(KEY, ())
    assumed = [f"{row['what']} {row['value']}" for row in rows if str(row["source"]).startswith(ASSUMED)]
    return f"assumed, since the file does not say it: {'; '.join(assumed)}" if assumed else ""
