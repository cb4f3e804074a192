"""An evaluation as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stageproof.runtime.labels import LabelSet
from stageproof.train.reports.calibration_text import calibration_heads, calibration_rows, guarantee, studies_by
from stageproof.train.reports.clinical_sections import all_sections, flow_section
from stageproof.train.reports.facts import Facts
from stageproof.train.reports.flow_diagram import boxes
from stageproof.train.reports.formatting import (
    count_heads,
    format_figure,
    people_in,
    power_sentence,
    question,
    unit_of,
)
from stageproof.train.reports.misclassified import Misclassified, summary
from stageproof.train.reports.populations import section as populations
from stageproof.train.reports.tables import Table, calibration, class_note, classes, metrics
from stageproof.train.reports.templates import html

_BESIDE = {"Net benefit": "net-benefit.png", "Predictive values at other prevalences": "predictive-values.png"}
"""The picture of a section."""
_NOTE = (
    "Grey: where the curve of perfectly calibrated probabilities of as many patients stays in 95 % of cases (Bröcker "
    "and Smith 2007). The error expected of such probabilities by chance is subtracted from the calibration error. "
    "Slope: 1 is calibrated, below 1 too extreme. Skill: 0 is no better than the prevalence, 1 is perfect."
)


def captions(classes: LabelSet) -> dict[str, str]:
    """What each picture of an evaluation shows, by file name."""
    return {
        "figures.png": "main metrics with their intervals",
        "confusion.png": "confusion matrix: rows are the true class, columns the predicted one; shade: share of the "
        "row",
        "roc.png": f"ROC curve, {question(classes)}",
        "roc-classes.png": "ROC curves of each class against all others, with AUC and interval",
        "reliability.png": "reliability diagram before and after temperature scaling",
        "risk-coverage.png": "risk-coverage curve: error rate against the share of predictions given",
        "control.png": "balanced accuracy with shuffled labels",
        "net-benefit.png": "decision curve: net benefit against the threshold probability, with intervals",
        "predictive-values.png": "predictive values against prevalence, with intervals",
    }


def page(facts: dict[str, Any], drawn: dict[str, bytes], wrong: Sequence[Misclassified] = ()) -> str:
    """The HTML text. facts: content of `evaluation.json`. drawn: file name → PNG. wrong: slices to show."""
    found, data, shuffled = Facts("evaluation.json", facts), facts["data"], facts["control"]["permutation"]
    confusion, temperatures = facts["slices"]["confusion"], facts["calibration"]["crossfit_temperatures"]
    heads = calibration_heads(facts["calibration"])
    assessed = calibration_rows(facts["calibration"], found.classes) if heads else []
    areas = [(name, facts["risk"][name]) for name in ("slices", "patients") if facts["risk"][name]]
    return html(
        "train/reports/evaluation.html.j2",
        title=f"Evaluation of {facts['run']}",
        facts=facts,
        pictures=drawn,
        captions=captions(found.classes),
        question=question(found.classes),
        beside=_BESIDE,
        people=people_in(data),
        unit=unit_of(data),
        unit_known=bool(count_heads(data)),
        metrics=metrics(found),
        flow=flow_section(found),
        steps=boxes(facts["flow"]),
        classes=[classes(found, level) for level in ("slices", "patients") if facts[level]],
        class_note=class_note(unit_of(data), found.classes),
        wrong=wrong,
        misclassified=summary(wrong, data["slices"] - sum(row[at] for at, row in enumerate(confusion)), data["slices"]),
        crossfitted=["none" if one is None else f"{one:.3f}" for one in temperatures or ()],
        studies_by=studies_by(facts["calibration"]),
        of_calibration=calibration(found),
        assessment=Table(("calibration", *heads), tuple(assessed), _NOTE if heads else ""),
        guarantee=guarantee(facts["abstention"]) if facts["abstention"] else "",
        risk=Table(
            ("", "area under the curve"), tuple((name, format_figure(one["area"], False)) for name, one in areas)
        ),
        sections=[*([populations(facts["populations"])] if facts.get("populations") else []), *all_sections(found)],
        power=power_sentence(shuffled, data["patients"]) if shuffled else "",
    )
