"""Calibration and abstention as people read them, on the command line, in the report and on the card."""

from __future__ import annotations

from typing import Any

from stageproof.train.reports.formatting import number, spoken, terminal_row

_KINDS = (("before", "slices, before"), ("after", "slices, after"), ("patients", "studies"))
_BY = {
    "cross-fitted": "calibrated on other patients from the evidence of all slices",
    "stored": "by the rule stored in the run",
    "mean": "the mean of the slices' probabilities, not calibrated for studies",
}


def studies_by(calibration: dict[str, Any]) -> str:
    """Where the probabilities of studies come from. calibration: as `evaluation.json` has it."""
    return f"Probabilities of studies are {_BY[calibration['studies_by'] or 'mean']}."


def calibration_rows(calibration: dict[str, Any]) -> list[list[str]]:
    """One row a figure; columns are those of `calibration_heads`."""
    found = _assessed(calibration)
    picks = [
        ("miscalibration", lambda one: _verdict(one["miscalibration"])),
        ("calibration error, less that of chance", lambda one: _band(one["ece"])),
        ("demented, predicted less observed", lambda one: spoken(one["in_the_large"]["demented"], True)),
        ("calibration slope", lambda one: spoken(one["slope"], False)),
        ("Brier skill over the prevalence", lambda one: spoken(one["skill"]["brier"], True)),
        ("NLL skill over the prevalence", lambda one: spoken(one["skill"]["nll"], True)),
    ]
    return [[name, *(pick(one) if "ece" in one else str(one["why"]) for _, one in found)] for name, pick in picks]


def calibration_heads(calibration: dict[str, Any]) -> list[str]:
    """The columns: what was judged."""
    return ["", *(name for name, _ in _assessed(calibration))]


def calibration_lines(calibration: dict[str, Any]) -> list[str]:
    """The same for a terminal of 80 columns; none where patients are unknown."""
    heads = calibration_heads(calibration)[1:]
    text: list[str] = []
    for name, *cells in calibration_rows(calibration) if heads else []:
        text.append(name)
        for head, cell in zip(heads, cells, strict=True):
            text += terminal_row(f"  {head}", cell, widths=(18, 62))
    return text


def guarantee(abstention: dict[str, Any]) -> str:
    """The thresholds and what is certified of them. abstention: as `evaluation.json` has it, not None."""
    said, limits = [], []
    for kind, level, key in (("slice", "slices", "abstain_below"), ("study", "patients", "study_abstain_below")):
        one = abstention[level]
        if one.get("certified", True):  # earlier evaluations have both or none
            limits.append(f"{abstention[key]:.3f} for a {kind}")
        else:
            said.append(
                f"No threshold is certified for a {kind} ({one['why']}), so a {kind} is not answered below a "
                "probability of exactly one."
            )
    return " ".join(
        [
            f"The model abstains below a probability of {' and '.join(limits)}. With "
            f"{number(abstention['confidence'], True)} confidence{' each' if len(limits) > 1 else ''}, at most "
            f"{number(abstention['target_risk'], True)} of these answers about new patients like these are wrong: "
            f"certified on {abstention['certified_on_patients']} patients, with a calibration fitted on "
            f"{abstention['fitted_on_patients']} others.",
            *said,
        ]
    )


def _assessed(calibration: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    assessment = calibration.get("assessment") or {}
    return [(name, assessment[key]) for key, name in _KINDS if assessment.get(key)]


def _verdict(test: dict[str, Any] | None) -> str:
    if test is None:
        return "not tested: too few errors expected"
    return f"{'shown' if test['declared'] else 'not shown'}, p = {test['p']:.3f}"


def _band(ece: dict[str, Any]) -> str:
    return f"{ece['value']:.3f} (perfect calibration: {ece['null_low']:.3f} to {ece['null_high']:.3f})"
