"""Figures as text: the same words on the command line, in reports and on cards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stageproof.runtime.labels import LabelSet

_LONGEST = 20
"""Maximum length of the two-way question in tables and charts, in characters."""
_SAME = ("macro.specificity", "macro.auc", "positive.accuracy")
"""Metrics that are others under a second name where there are two classes: balanced accuracy, AUC, accuracy."""


def metric_rows(classes: LabelSet) -> tuple[tuple[str, str, bool], ...]:
    """Name of each metric, its path in the metrics of a level, and whether it is a share shown in per cent.

    Without those that have the same value as another one because there are only two classes.
    """
    asked, two = question(classes), len(classes) == 2
    rows = (
        ("accuracy", "accuracy", True),
        ("balanced accuracy", "balanced_accuracy", True),
        ("macro precision", "macro.precision", True),
        ("macro specificity", "macro.specificity", True),
        ("macro F1", "macro.f1", False),
        ("macro AUC, one against the rest", "macro.auc", False),
        ("Cohen's kappa" if two else "quadratic-weighted kappa", "kappa", False),
        (f"{asked}: accuracy", "positive.accuracy", True),
        (f"{asked}: sensitivity", "positive.sensitivity", True),
        (f"{asked}: specificity", "positive.specificity", True),
        (f"{asked}: AUC", "positive.auc", False),
    )
    return tuple(row for row in rows if not (two and row[1] in _SAME))


def question(classes: LabelSet) -> str:
    """The two-way question for tables and charts: ``demented or not``, ``positive or not`` if its name is long."""
    return classes.question if len(classes.question) <= _LONGEST else "positive or not"


def positive_name(classes: LabelSet) -> str:
    """What a positive is called in tables and charts: ``demented``, ``AD``, or ``positive`` if its name is long."""
    return classes.positive_name if len(classes.question) <= _LONGEST else "positive"


def condition(classes: LabelSet) -> str:
    """What a positive patient has: ``dementia``, ``AD``, or ``a positive class`` if its name is long."""
    known = {"demented": "dementia", "positive": "a positive class"}
    return known.get(positive_name(classes), positive_name(classes))


def positive_classes(classes: LabelSet) -> str:
    """Which classes are positive, as a sentence; empty if what a positive is called says it."""
    if positive_name(classes).casefold() == " or ".join(classes.positive).casefold():
        return ""
    name = positive_name(classes)
    return f"{name[:1].upper()}{name[1:]}: {joined(classes.positive, 'or')}."


def class_columns(classes: LabelSet) -> tuple[tuple[str, str, bool], ...]:
    """The same for the metrics of one class. Of two classes, each has the recall of the other one as its specificity,
    and the same AUC."""
    columns = (
        ("precision", "precision", True),
        ("recall", "recall", True),
        ("specificity", "specificity", True),
        ("F1", "f1", False),
        ("AUC", "auc", False),
    )
    return tuple(one for one in columns if len(classes) > 2 or one[1] not in ("specificity", "auc"))


CALIBRATION: tuple[tuple[str, str], ...] = (
    ("calibration error, less that of chance", "ece"),
    ("Brier score", "brier"),
    ("negative log-likelihood", "nll"),
)
"""Name and path of each metric of calibration."""


def pick(facts: dict[str, Any], path: str) -> Any:
    """The value at `path`, such as ``positive.auc``. Raises KeyError if there is none."""
    found: Any = facts
    for name in path.split("."):
        found = found[name]
    return found


def number(value: float, share: bool) -> str:
    """``48.9 %`` for a share, ``0.613`` for any other figure."""
    return f"{100 * value:.1f} %" if share else f"{value:.3f}"


def format_figure(figure: dict[str, Any], share: bool) -> str:
    """Value and interval of a figure, ``48.9 % [41.2, 56.6]``, or the reason for which it has none."""
    if figure["value"] is None:
        return str(figure["why"])
    said = number(figure["value"], share)
    if figure["low"] is None:
        return f"{said} ({figure['why']})" if "why" in figure else said
    if share:
        return f"{said} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
    return f"{said} [{figure['low']:.3f}, {figure['high']:.3f}]"


def patient_count(figure: dict[str, Any]) -> str:
    """The number of patients from whom a figure is estimated, or of groups if the number of patients is unknown."""
    count = figure["patients"] if figure["patients"] is not None else figure.get("groups")
    return "unknown" if count is None else str(count)


def unit_of(data: dict[str, Any]) -> str:
    """What intervals are over: ``patients`` or ``groups``. data: as in `evaluation.json`."""
    return "groups" if data.get("verdict") == "groups" else "patients"


def count_heads(data: dict[str, Any]) -> list[str]:
    """Head of the column with the number of patients or groups; empty if they are unknown."""
    return [] if data.get("verdict") == "unknown" else [f"number of {unit_of(data)}"]


def people_in(data: dict[str, Any]) -> str:
    """Number of patients or groups, in words. data: as in `evaluation.json`."""
    if data["patients"] is not None:
        return f"{data['patients']} patients"
    return "unknown patients" if data.get("groups") is None else f"{data['groups']} groups (patients unknown)"


def joined(names: Sequence[str], last: str = "and") -> str:
    """``A``, ``A and B``, ``A, B and C``."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def power_sentence(facts: dict[str, Any], patients: int) -> str:
    """Statistical power of a negative control. facts: of `train.evaluate.negative_controls.permutation_test`."""
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
