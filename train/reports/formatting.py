"""Figures as people read them: the same words on the command line, in the report and on the cards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from textwrap import wrap
from typing import Any

ROWS: tuple[tuple[str, str, bool], ...] = (
    ("accuracy", "accuracy", True),
    ("balanced accuracy", "balanced_accuracy", True),
    ("macro precision", "macro.precision", True),
    ("macro specificity", "macro.specificity", True),
    ("macro F1", "macro.f1", False),
    ("macro AUC, one against the rest", "macro.auc", False),
    ("quadratic-weighted kappa", "kappa", False),
    ("demented or not: accuracy", "demented.accuracy", True),
    ("demented or not: sensitivity", "demented.sensitivity", True),
    ("demented or not: specificity", "demented.specificity", True),
    ("demented or not: AUC", "demented.auc", False),
)
"""What to call each figure of a level, where it lies in it, and whether it is a share shown in per cent."""

OF_CLASS: tuple[tuple[str, str, bool], ...] = (
    ("precision", "precision", True),
    ("recall", "recall", True),
    ("specificity", "specificity", True),
    ("F1", "f1", False),
    ("AUC", "auc", False),
)
"""The same for the figures of one class."""

CALIBRATION: tuple[tuple[str, str], ...] = (
    ("calibration error, less that of chance", "ece"),
    ("Brier score", "brier"),
    ("negative log-likelihood", "nll"),
)
"""The same for calibration."""


def whose(unit: str) -> str:
    """What the numbers beside figures of classes count. unit: ``patients`` or ``groups``."""
    return (
        f"The number of {unit} is that of the class; precision rests on the {unit} predicted as it, specificity on all "
        "others, and an AUC on the smaller of the two sides that it compares."
    )


def pick(facts: dict[str, Any], path: str) -> Any:
    """What lies at `path`, such as ``demented.auc``. Raises KeyError where there is nothing."""
    found: Any = facts
    for name in path.split("."):
        found = found[name]
    return found


def number(value: float, share: bool) -> str:
    """``48.9 %`` of a share, ``0.613`` of any other figure."""
    return f"{100 * value:.1f} %" if share else f"{value:.3f}"


def spoken(figure: dict[str, Any], share: bool) -> str:
    """Value and interval of a figure, or why there is none."""
    if figure["value"] is None:
        return str(figure["why"])
    said = number(figure["value"], share)
    if figure["low"] is None:
        return f"{said} ({figure['why']})" if "why" in figure else said
    if share:
        return f"{said} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
    return f"{said} [{figure['low']:.3f}, {figure['high']:.3f}]"


def resting_on(figure: dict[str, Any]) -> str:
    """On how many patients a figure rests, or on how many groups where nobody knows how many people they are."""
    count = figure["patients"] if figure["patients"] is not None else figure.get("groups")
    return "unknown" if count is None else str(count)


def unit_of(data: dict[str, Any]) -> str:
    """What figures rest on: ``patients`` or ``groups``. data: as `evaluation.json` has it."""
    return "groups" if data.get("verdict") == "groups" else "patients"


def counted_by(data: dict[str, Any]) -> list[str]:
    """The head of the column that says what figures rest on; none where patients are unknown."""
    return [] if data.get("verdict") == "unknown" else [f"number of {unit_of(data)}"]


def people_in(data: dict[str, Any]) -> str:
    """Of how many patients or groups the slices are, in words. data: as `evaluation.json` has it."""
    if data["patients"] is not None:
        return f"{data['patients']} patients"
    return "unknown patients" if data.get("groups") is None else f"{data['groups']} groups (patients unknown)"


def terminal_row(*cells: str, widths: Sequence[int]) -> list[str]:
    """Lines of one row of a table for a terminal: what is too long for its column goes on below, in its column.

    widths: characters of each column, the space between columns included.
    """
    columns = [wrap(cell, width - 1, break_on_hyphens=False) or [""] for cell, width in zip(cells, widths, strict=True)]
    return [
        "".join(f"{piece:<{width}}" for piece, width in zip(pieces, widths, strict=True)).rstrip()
        for pieces in zip_longest(*columns, fillvalue="")
    ]


def joined(names: list[str]) -> str:
    """``A``, ``A and B``, ``A, B and C``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def power_sentence(facts: dict[str, Any], patients: int) -> str:
    """What a control that does not fail is worth. facts: of `train.evaluate.negative_controls.permutation_test`."""
    if "power" not in facts:
        return "The power of this control was not computed: evaluate again."
    found = f"would be found in {facts['power']:.0%} of controls"
    if facts["has_power"]:
        return f"Power: leakage of {facts['leaked']:.0%} of the {patients} patients {found}."
    needed = facts["patients_needed"]
    return (
        f"NO POWER: with {patients} patients tested, leakage of {facts['leaked']:.0%} of them {found}, so a control "
        "that does not fail is no evidence. "
        + (f"About {needed} patients tested are needed." if needed else "More patients tested are needed.")
    )
