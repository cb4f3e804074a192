"""An evaluation as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stageproof.runtime.labels import LABELS
from stageproof.runtime.text.escapes import markup as escape
from stageproof.train.reports.calibration_text import calibration_heads, calibration_rows, guarantee, studies_by
from stageproof.train.reports.clinical_sections import Section, all_sections, flow_section
from stageproof.train.reports.facts import Facts
from stageproof.train.reports.flow_diagram import diagram
from stageproof.train.reports.formatting import (
    CALIBRATION,
    OF_CLASS,
    ROWS,
    counted_by,
    joined,
    number,
    people_in,
    pick,
    power_sentence,
    resting_on,
    spoken,
    unit_of,
    whose,
)
from stageproof.train.reports.html import document, picture, table
from stageproof.train.reports.misclassified import STYLE, Misclassified, section

CAPTIONS = {
    "figures.png": "main figures with their intervals",
    "confusion.png": "confusion matrix: rows are the true class, columns the predicted one; shade: share of the row",
    "roc.png": "ROC curve, demented or not",
    "roc-classes.png": "ROC curves of each class against all others, with AUC and interval",
    "reliability.png": "reliability diagram before and after temperature",
    "risk-coverage.png": "risk against coverage",
    "control.png": "score with shuffled labels",
    "net-benefit.png": "net benefit against the probability from which somebody would act, with intervals",
    "predictive-values.png": "predictive values against the share of people with dementia, with intervals",
}
"""What each picture of an evaluation shows, by file name."""

_BESIDE = {"Net benefit": "net-benefit.png", "Predictive values at other prevalences": "predictive-values.png"}
"""The picture of a section."""


def page(facts: dict[str, Any], drawn: dict[str, bytes], wrong: Sequence[Misclassified] = ()) -> str:
    """The HTML text. facts: the content of `evaluation.json`. drawn: file name → PNG. wrong: slices to show."""
    data = facts["data"]
    title = f"Evaluation of {facts['run']}"
    found = Facts("evaluation.json", facts)
    people = people_in(data)
    what = "held out by the run" if data["held_out_by_run"] else "other data"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{data['slices']} slices of {people} from {escape(data['source'])}, {what}.</p>",
        *(f'<p class="warning">{escape(warning)}</p>' for warning in facts["warnings"]),
        _headline(facts),
        _image(drawn, "figures.png"),
        _levels(facts),
        _clinical(flow_section(found), diagram(facts["flow"])),
        "<h2>Confusion matrix</h2>",
        _image(drawn, "confusion.png"),
        _classes(facts),
        "<h2>Each class against the others</h2>",
        _image(drawn, "roc-classes.png"),
        _misclassified(facts, wrong),
        "<h2>Demented or not</h2>",
        _image(drawn, "roc.png"),
        _calibration(facts, drawn),
        _risk(facts, drawn),
        *(_clinical(section, _image(drawn, _BESIDE.get(section.heading, ""))) for section in all_sections(found)),
        _control(facts, drawn),
        _method(facts),
    ]
    return document(title, parts, "Research use only. Not a medical device.", STYLE)


def _misclassified(facts: dict[str, Any], wrong: Sequence[Misclassified]) -> str:
    confusion, count = facts["slices"]["confusion"], facts["data"]["slices"]
    return section(wrong, count - sum(row[at] for at, row in enumerate(confusion)), count)


def _headline(facts: dict[str, Any]) -> str:
    level, who = (facts["patients"], "patients") if facts["patients"] else (facts["slices"], "slices")
    accuracy, kappa = spoken(level["accuracy"], True), spoken(level["demented"]["auc"], False)
    return (
        f'<p class="headline">Of the {who}, {escape(accuracy)} are right; always answering the largest class: '
        f"{number(level['largest_class'], True)}. Demented or not: AUC {escape(kappa)}.</p>"
    )


def _levels(facts: dict[str, Any]) -> str:
    levels = [("slices", facts["slices"]), ("patients", facts["patients"])]
    levels = [(name, level) for name, level in levels if level]
    rows = []
    for name, path, share in ROWS:
        figures = [pick(level, path) for _, level in levels]
        counts = [resting_on(figures[-1])] * len(counted_by(facts["data"]))
        rows.append([name, *(spoken(figure, share) for figure in figures), *counts])
    counted = facts["slices"]["counted"]
    judged = ""
    if facts["patients"]:
        judged = f"{escape(studies_by(facts['calibration']))} "
    note = f"Macro figures and balanced accuracy are means over {joined(counted)}; " if counted else ""
    chance = f"chance is {number(facts['slices']['chance'], True)}." if counted else ""
    return (
        f"<h2>Figures</h2>{table(['', *(name for name, _ in levels), *counted_by(facts['data'])], rows)}"
        f'<p class="note">{judged}{note}{chance}</p>'
    )


def _classes(facts: dict[str, Any]) -> str:
    parts, counted = [], counted_by(facts["data"])
    for name in ("slices", "patients"):
        if facts[name]:
            rows = [
                [
                    label,
                    *(spoken(facts[name]["classes"][label][path], share) for _, path, share in OF_CLASS),
                    *[resting_on(facts[name]["classes"][label]["recall"])] * len(counted),
                ]
                for label in LABELS
            ]
            heads = [f"class, by {name}", *(head for head, _, _ in OF_CLASS), *counted]
            parts.append(table(heads, rows))
    return "".join(parts) + (f'<p class="note">{whose(unit_of(facts["data"]))}</p>' if counted else "")


def _calibration(facts: dict[str, Any], drawn: dict[str, bytes]) -> str:
    calibration = facts["calibration"]
    sides = [side for side in ("before", "after", "change") if calibration[side]]
    rows = [[name, *(spoken(calibration[side][path], False) for side in sides)] for name, path in CALIBRATION]
    temperature = calibration["temperature"]
    said = "No temperature was fitted." if temperature is None else f"Temperature {temperature:.3f}."
    if calibration["crossfit_temperatures"]:
        said += (
            f" The figures of each half of the {unit_of(facts['data'])} come from a temperature fitted on the other "
            + "half ("
            + joined(["none" if one is None else f"{one:.3f}" for one in calibration["crossfit_temperatures"]])
            + ")."
        )
    return (
        f"<h2>Calibration</h2><p>{said} {escape(studies_by(calibration))}</p>{_image(drawn, 'reliability.png')}"
        f"{table(['slices', *sides], rows)}{_assessment(calibration)}"
    )


def _assessment(calibration: dict[str, Any]) -> str:
    rows = calibration_rows(calibration)
    if len(rows[0]) == 1:
        return ""
    note = (
        "Grey: where the curve of perfectly calibrated probabilities stays in 95 % of cases, with as many patients "
        "(Bröcker and Smith 2007). The calibration error has the error subtracted that these would show by chance. "
        "Slope: 1 is calibrated, below it "
        "too extreme. Skill: 0 says no more than the prevalence, 1 is perfect."
    )
    return f'{table(calibration_heads(calibration), rows)}<p class="note">{note}</p>'


def _risk(facts: dict[str, Any], drawn: dict[str, bytes]) -> str:
    said, abstention = "The model never abstains.", facts["abstention"]
    if abstention:
        said = guarantee(abstention)
        for name in ("slices", "patients"):
            coverage, risk = abstention[name]["coverage"], abstention[name]["risk"]
            said += f" Of these it answers {spoken(coverage, True)} of the {name}; wrong: {spoken(risk, True)}."
    rows = [
        [name, spoken(facts["risk"][name]["area"], False)] for name in ("slices", "patients") if facts["risk"][name]
    ]
    area = table(["", "area under the curve"], rows)
    return f"<h2>Risk and coverage</h2><p>{escape(said)}</p>{_image(drawn, 'risk-coverage.png')}{area}"


def _control(facts: dict[str, Any], drawn: dict[str, bytes]) -> str:
    control = facts["control"]
    shuffled, identity = control["permutation"], control.get("identity")
    if shuffled is None and identity is None:
        return ""
    said = ""
    if shuffled:
        learned = (
            "the labels that the run was trained on" if control["shuffled_labels"] is not None else "the true labels"
        )
        said = (
            f"With labels shuffled among patients {shuffled['shuffles']} times, the balanced accuracy of slices is "
            f"{number(shuffled['shuffled_mean'], True)} on average and below {number(shuffled['shuffled_95'], True)} "
            f"in 95 of 100; with {learned} {number(shuffled['score'], True)} (p = {shuffled['p']:.3f}). "
            f"As a control on shuffled labels: {power_sentence(shuffled, facts['data']['patients'])}"
        )
    if identity:
        heads = "heads" if identity["complete"] else "identical pictures; fewer than 200 slices: heads not compared"
        said += (
            f" By the images alone, without ids, {number(identity['shown'], True)} of these slices match a training "
            f"slice ({heads}); allowed {number(identity['allowed'], True)}."
        )
    return f"<h2>Control</h2><p>{said}</p>{_image(drawn, 'control.png')}"


def _clinical(section: Section, drawing: str) -> str:
    rows = table(section.heads, section.rows) if section.rows else ""
    note = f'<p class="note">{escape(section.note)}</p>' if section.note else ""
    return f"<h2>{escape(section.heading)}</h2><p>{escape(section.text)}</p>{drawing}{rows}{note}"


def _method(facts: dict[str, Any]) -> str:
    method = facts["method"]
    intervals = escape(method["intervals"])
    known = bool(counted_by(facts["data"]))
    if known:
        intervals = f"in brackets, {number(method['level'], True)}, {intervals}"
    least = f" Figures on fewer than {method['least_patients']} {unit_of(facts['data'])} are not given."
    made = f"stageproof {escape(facts['stageproof'])}, {facts['created']}, weights {facts['weights_sha256'][:16]}…"
    chosen = escape(facts["selection_sentence"])
    return f"<h2>Method</h2><p>Intervals: {intervals}.{least if known else ''} {chosen} {made}</p>"


def _image(drawn: dict[str, bytes], name: str) -> str:
    return picture(drawn[name], CAPTIONS[name]) if name in drawn else ""
