"""The clinical part of an evaluation in words and tables, the same in the report and on the card.

No digit stands in the prose: every number is looked up in `evaluation.json`.
"""

from __future__ import annotations

from dataclasses import dataclass

from stageproof.train.reports.facts import CardError, Facts
from stageproof.train.reports.flow_diagram import rows as flow_rows
from stageproof.train.reports.formatting import number, people_in, spoken
from stageproof.train.runs.selection import selected_on_evaluated

UNKNOWN = "Not given: the patients are unknown, and slices of one person are not independent."


@dataclass(frozen=True)
class Section:
    """A heading, text, a table and a note; plain text throughout."""

    heading: str
    text: str
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""


def flow_section(found: Facts) -> Section:
    """From the files of the source to what was answered."""
    unit = found("flow.unit") if found.known("flow.unit") else "patients"
    try:
        rows = tuple(flow_rows(found("flow")))
    except KeyError as error:
        raise CardError(
            f"{found.name} has no flow with {error}, which the card needs. Evaluate the run again."
        ) from error
    return Section(
        "Flow of slices and patients",
        f"From the files of the data set to the answers, in slices and {unit}.",
        ("step", "slices", str(unit)),
        rows,
        "Unreadable files were left out and are in no figure. A person with slices of several parts counts in each. "
        "An evaluation does not apply the input check of an exported bundle, so nothing was rejected; slices that a "
        "bundle would reject are among the evaluated ones.",
    )


def reference_standard(found: Facts) -> Section:
    """What the answers were compared with."""
    return Section(
        "Reference standard",
        f"The stage that the data set ({found('data.source')}) records for each slice. Who made the diagnosis, by "
        "which criteria, how long before or after the scan, and whether they knew the image, is not recorded.",
    )


def sample_size(found: Facts) -> Section:
    """How many patients, and how precise that makes the main figure."""
    text = (
        "No sample size was calculated beforehand. Evaluated were "
        f"{found('data.slices')} slices of {people_in(found('data'))}."
    )
    if found.known("patients"):
        text += (
            f" For {found('data.patients')} patients the accuracy is {spoken(found('patients.accuracy'), True)}: the "
            "width of the interval is the precision that this number of patients gives."
        )
    return Section("Sample size", text)


def demographics(found: Facts) -> Section:
    """Age and sex by part of the data."""
    heading = "Age and sex"
    if not found.known("demographics"):
        return Section(
            heading, "Not recorded, or the patients are unknown. Nothing can be said of figures by age or sex."
        )
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
    """Figures by age and sex."""
    heading = "Subgroups by age and sex"
    if not found.known("subgroups"):
        return Section(heading, "Not given: age and sex are not recorded, or the patients are unknown.")
    rows = []
    for at in range(len(found("subgroups"))):
        one = f"subgroups.{at}"
        figures = [
            spoken(found(f"{one}.{name}"), name != "auc") for name in ("accuracy", "sensitivity", "specificity", "auc")
        ]
        rows.append(
            (
                f"{found(f'{one}.by')} {found(f'{one}.name')}",
                str(found(f"{one}.patients")),
                str(found(f"{one}.demented")),
                *figures,
            )
        )
    return Section(
        heading,
        "Figures of patients. Sensitivity, specificity and AUC are of demented (any stage) against not demented.",
        ("subgroup", "patients", "demented", "accuracy", "sensitivity", "specificity", "AUC"),
        tuple(rows),
        "Intervals are of each subgroup alone and not adjusted for their number. Intervals that overlap do not show "
        "that the model does equally well in two subgroups; few patients cannot show that.",
    )


def _missing(found: Facts, path: str, figures: str) -> str | None:
    """Why there are no figures; None where there are."""
    if not found.known(path):
        return UNKNOWN
    return None if found.known(f"{path}.{figures}") else f"{str(found(f'{path}.why')).capitalize()}."


def predictive(found: Facts) -> Section:
    """Predictive values at other prevalences."""
    heading = "Predictive values at other prevalences"
    if (why := _missing(found, "predictive_values", "at")) is not None:
        return Section(heading, why)
    rows = []
    for at in range(len(found("predictive_values.at"))):
        one = f"predictive_values.at.{at}"
        values = [spoken(found(f"{one}.{name}"), True) for name in ("positive", "negative")]
        rows.append((number(found(f"{one}.prevalence"), True), *values))
    return Section(
        heading,
        "Positive predictive value: the share of people predicted to be demented who are. Negative predictive value: "
        "the share of people predicted not to be demented who are not. Both depend on how common dementia is among the "
        "people who are imaged.",
        ("people with dementia", "positive predictive value", "negative predictive value"),
        tuple(rows),
        f"Computed from the sensitivity in {found('predictive_values.patients_with')} patients with dementia and the "
        f"specificity in {found('predictive_values.patients_without')} without, on the assumption that both are the "
        "same elsewhere. No data of such a population was evaluated.",
    )


def decision_curve(found: Facts) -> Section:
    """Net benefit at some thresholds."""
    heading = "Net benefit"
    if (why := _missing(found, "net_benefit", "curve")) is not None:
        return Section(heading, why)
    rows = []
    for at in range(1, len(found("net_benefit.curve")), 2):
        one = f"net_benefit.curve.{at}"
        figures = [spoken(found(f"{one}.{name}"), False) for name in ("model", "treat_all", "over_all")]
        rows.append((number(found(f"{one}.threshold"), True), *figures))
    return Section(
        heading,
        "In true positives per patient, after false positives are subtracted at the odds of the threshold: somebody "
        "who acts from that probability of dementia on accepts so many false positives for one true positive. Acting "
        "on nobody has a net benefit of zero. The model is of use at a threshold only where it exceeds both that and "
        "acting on everybody.",
        ("threshold", "model", "act on everybody", "model less everybody"),
        tuple(rows),
        f"Of {found('net_benefit.patients')} patients, {number(found('net_benefit.prevalence'), True)} of whom have "
        "dementia; net benefit changes with this share. Intervals are of each threshold alone. This is a description "
        "of the evaluated people and no advice to act.",
    )


def selection(found: Facts) -> Section:
    """What was chosen on which slices."""
    names = ("what", "by", "on")
    rows = tuple(tuple(str(found(f"selection.{at}.{name}")) for name in names) for at in range(len(found("selection"))))
    warned = ""
    if selected_on_evaluated(found("selection")):
        warned = " Choices were made on the evaluated slices: the figures are too high by an unknown amount."
    return Section(
        "What was selected on what",
        f"A figure on slices that something was chosen on is too high.{warned}",
        ("chosen", "by", "on"),
        rows,
        "How often other recipes, seeds or splits were tried before, and on which slices, is not recorded.",
    )


def variance(found: Facts) -> Section:
    """How figures differ between runs."""
    heading = "Variance between training runs"
    if not found.known("between_runs"):
        return Section(heading, "Not measured on this data.")
    runs = found("between_runs.runs")
    if runs < found("method.least_runs"):
        return Section(
            heading,
            "Not measured: no other evaluated run of this recipe and data lies beside this one. The intervals hold for "
            "this network, not for one that is trained anew.",
        )
    rows = []
    for name, title in (
        ("accuracy", "accuracy"),
        ("balanced_accuracy", "balanced accuracy"),
        ("auc", "AUC, demented or not"),
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
        ("figure", "mean", "standard deviation", "runs"),
        tuple(rows),
        "Runs of different folds are judged on different people, so this is the variance of both.",
    )


def all_sections(found: Facts) -> list[Section]:
    """Every section but the flow, in the order of a paper: who, compared with what, and what the figures mean."""
    made = (reference_standard, sample_size, demographics, subgroups, predictive, decision_curve, selection, variance)
    return [make(found) for make in made]
