"""Figures as text: the same words on the command line, in reports and on cards."""

from __future__ import annotations

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
"""Name of each metric, its path in the metrics of a level, and whether it is a share shown in per cent."""

OF_CLASS: tuple[tuple[str, str, bool], ...] = (
    ("precision", "precision", True),
    ("recall", "recall", True),
    ("specificity", "specificity", True),
    ("F1", "f1", False),
    ("AUC", "auc", False),
)
"""The same for the metrics of one class."""

CALIBRATION: tuple[tuple[str, str], ...] = (
    ("calibration error, less that of chance", "ece"),
    ("Brier score", "brier"),
    ("negative log-likelihood", "nll"),
)
"""Name and path of each metric of calibration."""


def pick(facts: dict[str, Any], path: str) -> Any:
    """The value at `path`, such as ``demented.auc``. Raises KeyError if there is none."""
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


def joined(names: list[str]) -> str:
    """``A``, ``A and B``, ``A, B and C``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


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
