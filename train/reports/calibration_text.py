"""Calibration and abstention as text, for the command line, the report and the card."""

from __future__ import annotations

from typing import Any

from stageproof.runtime.labels import LabelSet
from stageproof.train.reports.formatting import format_figure, number, positive_name
from stageproof.train.reports.terminal import table

_KINDS = (("before", "slices, before"), ("after", "slices, after"), ("patients", "studies"))
_BY = {
    "cross-fitted": "calibrated on other patients, from the predictions of all slices",
    "stored": "computed by the rule stored in the run",
    "mean": "the mean of the slices' probabilities, not calibrated for studies",
}


def studies_by(calibration: dict[str, Any]) -> str:
    """How the probabilities of studies are computed. calibration: as in `evaluation.json`."""
    return f"Probabilities of studies are {_BY[calibration['studies_by'] or 'mean']}."


def calibration_rows(calibration: dict[str, Any], classes: LabelSet) -> list[tuple[str, ...]]:
    """Comparison with perfectly calibrated probabilities, one figure a row; columns: `calibration_heads`."""
    found = _assessed(calibration)
    picks = [
        ("miscalibration", lambda one: _verdict(one["miscalibration"])),
        ("calibration error, less that of chance", lambda one: _band(one["ece"])),
        (
            f"{positive_name(classes)}, predicted minus observed",
            lambda one: format_figure(one["in_the_large"]["positive"], True),
        ),
        ("calibration slope", lambda one: format_figure(one["slope"], False)),
        ("Brier skill over the prevalence", lambda one: format_figure(one["skill"]["brier"], True)),
        ("NLL skill over the prevalence", lambda one: format_figure(one["skill"]["nll"], True)),
    ]
    return [(name, *(pick(one) if "ece" in one else str(one["why"]) for _, one in found)) for name, pick in picks]


def calibration_heads(calibration: dict[str, Any]) -> list[str]:
    """The probabilities that were assessed: of slices before and after the temperature, and of studies."""
    return [name for name, _ in _assessed(calibration)]


def calibration_lines(calibration: dict[str, Any], classes: LabelSet) -> list[str]:
    """The same for a terminal of 80 columns; none if patients are unknown."""
    heads = calibration_heads(calibration)
    text: list[str] = []
    for name, *cells in calibration_rows(calibration, classes) if heads else []:
        rows = [(f"  {head}", cell) for head, cell in zip(heads, cells, strict=True)]
        text += [name, *table((), rows, (17, 62))]
    return text


def guarantee(abstention: dict[str, Any]) -> str:
    """The thresholds of abstention and the certified error rate. abstention: as in `evaluation.json`, not None."""
    said, limits = [], []
    for kind, level, key in (("slice", "slices", "abstain_below"), ("study", "patients", "study_abstain_below")):
        one = abstention[level]
        if one.get("certified", True):  # earlier evaluations have both or none
            limits.append(f"{abstention[key]:.3f} for a {kind}")
        else:
            said.append(
                f"No threshold is certified for a {kind} ({one['why']}), so the model abstains for a {kind} below a "
                "probability of exactly one."
            )
    return " ".join(
        [
            f"The model abstains below a probability of {' and '.join(limits)}. With "
            f"{number(abstention['confidence'], True)} confidence{' each' if len(limits) > 1 else ''}, at most "
            f"{number(abstention['target_risk'], True)} of the predictions that it gives for new patients of this "
            f"population are wrong: certified on {abstention['certified_on_patients']} patients, with a calibration "
            f"fitted on {abstention['fitted_on_patients']} others.",
            *said,
        ]
    )


def _assessed(calibration: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    assessment = calibration.get("assessment") or {}
    return [(name, assessment[key]) for key, name in _KINDS if assessment.get(key)]


def _verdict(test: dict[str, Any] | None) -> str:
    if test is None:
        return "not tested: too few errors expected"
    return f"{'significant' if test['declared'] else 'not significant'}, p = {test['p']:.3f}"


def _band(ece: dict[str, Any]) -> str:
    return f"{ece['value']:.3f} (perfect calibration: {ece['null_low']:.3f} to {ece['null_high']:.3f})"
