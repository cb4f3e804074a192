"""Clinical sections of an evaluation, the same in the report and on the card.

The prose contains no digit: every number is looked up in `evaluation.json`.
"""

from __future__ import annotations

from dataclasses import dataclass

from stageproof.train.reports.facts import CardError, Facts
from stageproof.train.reports.flow_diagram import rows as flow_rows
from stageproof.train.reports.formatting import condition, format_figure, number, people_in, positive_name, question
from stageproof.train.runs.selection import selected_on_evaluated

UNKNOWN = "Not given: the patients are unknown, and slices of one patient are not independent."


@dataclass(frozen=True)
class Section:
    """A heading, text, a table and a note; plain text throughout."""

    heading: str
    text: str
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""


def flow_section(found: Facts) -> Section:
    """From the files of the data set to the predictions."""
    unit = found("flow.unit") if found.known("flow.unit") else "patients"
    try:
        rows = tuple(flow_rows(found("flow")))
    except KeyError as error:
        raise CardError(
            f"{found.name} has no flow with {error}, which the card needs. Evaluate the run again."
        ) from error
    return Section(
        "Flow of slices and patients",
        f"From the files of the data set to the predictions, in slices and {unit}.",
        ("step", "slices", str(unit)),
        rows,
        "Unreadable files were left out and are in no figure. A patient with slices in several parts counts in each. "
        "An evaluation does not apply the input check of an exported bundle, so nothing was rejected; the evaluated "
        "slices may include some that a bundle would reject.",
    )


def reference_standard(found: Facts) -> Section:
    """What the predictions were compared with."""
    return Section(
        "Reference standard",
        f"The class that the data set ({found('data.source')}) records for each slice. The data does not record who "
        "made the diagnosis, by which criteria, how long before or after the scan, or whether with knowledge of the "
        "image.",
    )


def sample_size(found: Facts) -> Section:
    """Number of patients, and the precision of the accuracy that results from it."""
    text = (
        "No sample size was calculated beforehand. The evaluation has "
        f"{found('data.slices')} slices of {people_in(found('data'))}."
    )
    if found.known("patients"):
        text += (
            f" The accuracy of {found('data.patients')} patients is "
            f"{format_figure(found('patients.accuracy'), True)}: the width of the interval is the precision that this "
            "number of patients gives."
        )
    return Section("Sample size", text)


def demographics(found: Facts) -> Section:
    """Age and sex by part of the data."""
    heading = "Age and sex"
    if not found.known("demographics"):
        return Section(heading, "Not recorded, or the patients are unknown. Metrics by age or sex cannot be estimated.")
    rows = []
    for at in range(len(found("demographics.parts"))):
        part = f"demographics.parts.{at}"
        age, sex = "not recorded", found(f"{part}.sex")
        if found.known(f"{part}.age"):
            mean, least, most = (found(f"{part}.age.{name}") for name in ("mean", "min", "max"))
            sd = f" (SD {found(f'{part}.age.sd'):.1f})" if found.known(f"{part}.age.sd") else ""
            age = f"{mean:.1f}{sd}, {least:.0f} to {most:.0f}; of {found(f'{part}.age.recorded')}"
        counts = [str(found(f"{part}.sex.{name}")) for name in sex]
        rows.append((found(f"{part}.name"), str(found(f"{part}.patients")), age, *counts))
    heads = ("part", "patients", "age in years: mean, range; of patients", *found("demographics.parts.0.sex"))
    return Section(heading, f"From {found('demographics.origin')}, counted by patient.", heads, tuple(rows))


def subgroups(found: Facts) -> Section:
    """Metrics by age and sex."""
    heading = "Subgroups by age and sex"
    if not found.known("subgroups"):
        return Section(heading, "Not given: age and sex are not recorded, or the patients are unknown.")
    rows = []
    for at in range(len(found("subgroups"))):
        one = f"subgroups.{at}"
        named = f"{found(f'{one}.by')} {found(f'{one}.name')}"
        names = ("accuracy", "sensitivity", "specificity", "auc")
        figures = [format_figure(found(f"{one}.{name}"), name != "auc") for name in names]
        rows.append((named, str(found(f"{one}.patients")), str(found(f"{one}.positive")), *figures))
    return Section(
        heading,
        f"Metrics of patients. Sensitivity, specificity and AUC are for the question: {question(found.classes)}.",
        ("subgroup", "patients", positive_name(found.classes), "accuracy", "sensitivity", "specificity", "AUC"),
        tuple(rows),
        "Intervals are for each subgroup alone and not adjusted for multiple comparisons. Overlapping intervals do not "
        "show that the model performs equally in two subgroups; few patients cannot show that.",
    )


def _missing(found: Facts, path: str, figures: str) -> str | None:
    """The reason for which there are no figures; None if there are."""
    if not found.known(path):
        return UNKNOWN
    return None if found.known(f"{path}.{figures}") else f"{str(found(f'{path}.why')).capitalize()}."


def predictive(found: Facts) -> Section:
    """Predictive values at other prevalences."""
    heading = "Predictive values at other prevalences"
    if (why := _missing(found, "predictive_values", "at")) is not None:
        return Section(heading, why)
    rows, has = [], condition(found.classes)
    for at in range(len(found("predictive_values.at"))):
        one = f"predictive_values.at.{at}"
        values = [format_figure(found(f"{one}.{name}"), True) for name in ("positive", "negative")]
        rows.append((number(found(f"{one}.prevalence"), True), *values))
    return Section(
        heading,
        f"Positive predictive value: the share of patients predicted to have {has} who have it. Negative predictive "
        "value: the share of patients predicted not to have it who do not. Both depend on the prevalence of "
        f"{has} among the patients who are imaged.",
        ("prevalence", "positive predictive value", "negative predictive value"),
        tuple(rows),
        f"Computed by Bayes' rule from the sensitivity in {found('predictive_values.patients_with')} patients with "
        f"{has} and the specificity in {found('predictive_values.patients_without')} without, assuming that both "
        "are the same in other populations. No data of such a population was evaluated.",
    )


def decision_curve(found: Facts) -> Section:
    """Net benefit at several thresholds."""
    heading = "Net benefit"
    if (why := _missing(found, "net_benefit", "curve")) is not None:
        return Section(heading, why)
    rows = []
    for at in range(1, len(found("net_benefit.curve")), 2):
        one = f"net_benefit.curve.{at}"
        figures = [format_figure(found(f"{one}.{name}"), False) for name in ("model", "treat_all", "over_all")]
        rows.append((number(found(f"{one}.threshold"), True), *figures))
    return Section(
        heading,
        "In true positives per patient, minus false positives weighted by the odds of the threshold. The threshold is "
        f"the probability of {condition(found.classes)} above which a patient is treated; its odds are the number of "
        "false positives that are accepted for one true positive. Treating nobody has a net benefit of zero. The model "
        "is useful at a threshold only if its net benefit exceeds both zero and that of treating everybody.",
        ("threshold", "model", "treat everybody", "model minus treat everybody"),
        tuple(rows),
        f"For {found('net_benefit.patients')} patients with a prevalence of "
        f"{number(found('net_benefit.prevalence'), True)}; net benefit changes with the prevalence. Intervals are "
        "for each threshold alone. The figures describe the evaluated patients and are no advice to treat.",
    )


def selection(found: Facts) -> Section:
    """What was selected on which slices."""
    names = ("what", "by", "on")
    rows = tuple(tuple(str(found(f"selection.{at}.{name}")) for name in names) for at in range(len(found("selection"))))
    warned = ""
    if selected_on_evaluated(found("selection")):
        warned = " Selections were made on the evaluated slices: the metrics are optimistic by an unknown amount."
    return Section(
        "What was selected, and on which slices",
        f"Metrics on slices that were used for selection are optimistic.{warned}",
        ("selected", "by", "on"),
        rows,
        "How many other recipes, seeds or splits were tried before, and on which slices, is not recorded.",
    )


def variance(found: Facts) -> Section:
    """How metrics differ between training runs."""
    heading = "Variance between training runs"
    if not found.known("between_runs"):
        return Section(heading, "Not measured on this data.")
    runs = found("between_runs.runs")
    if runs < found("method.least_runs"):
        return Section(
            heading,
            "Not measured: the folder of this run has no other evaluated run of the same recipe and data. The "
            "intervals are for this network and do not include the variance between trainings.",
        )
    rows = []
    for name, title in (
        ("accuracy", "accuracy"),
        ("balanced_accuracy", "balanced accuracy"),
        ("auc", f"AUC, {question(found.classes)}"),
    ):
        one = f"between_runs.spread.{name}"
        if not found.known(f"{one}.mean"):
            continue
        share = name != "auc"
        sd = number(found(f"{one}.sd"), share) if found.known(f"{one}.sd") else "not estimable"
        rows.append((title, number(found(f"{one}.mean"), share), sd, str(found(f"{one}.runs"))))
    return Section(
        heading,
        f"Over {runs} evaluated runs of this recipe and data, with {found('between_runs.seeds')} different seeds and "
        f"{found('between_runs.folds')} different folds, by {found('between_runs.of')}.",
        ("metric", "mean", "standard deviation", "runs"),
        tuple(rows),
        "Runs of different folds are evaluated on different patients, so the variance between patients is included.",
    )


def all_sections(found: Facts) -> list[Section]:
    """Every section except the flow, in the order of a paper: participants, reference standard, results."""
    made = (reference_standard, sample_size, demographics, subgroups, predictive, decision_curve, selection, variance)
    return [make(found) for make in made]
