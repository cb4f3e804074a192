"""The sections of both cards, as Markdown. No digit stands in the prose: every number is looked up."""

from __future__ import annotations

from typing import Any

from runtime.labels import LABELS
from train.evaluation.card_facts import Facts
from train.evaluation.card_text import LIMITS, NOT_MEASURED, ONE_CLASS
from train.evaluation.heldout import recorded_verdict
from train.evaluation.words import (
    CALIBRATION,
    OF_CLASS,
    ROWS,
    counted_by,
    joined,
    number,
    people_in,
    resting_on,
    spoken,
    unit_of,
    whose,
)


def what_it_is(run: Facts) -> str:
    """What goes in and what comes out."""
    width, height, channels = run("input.width"), run("input.height"), run("input.channels")
    return (
        f"`{run('architecture')}` tells axial brain-MRI slices into {joined(list(run('labels')))}, in "
        f"the order of its outputs as the training run recorded it. It takes {width} × "
        f"{height} pixels in {channels} channel{'s' if channels > 1 else ''} and started from {run('start')}."
    )


def training_data(run: Facts, found: Facts) -> str:
    """What was trained on, by class."""
    rows = []
    for label in LABELS:
        slices, share = (found(f"data.training.{what}_by_class.{label}") for what in ("slices", "share"))
        rows.append([label, str(slices), number(share, True), *_people_by_class(found, label)])
    people = ["patients trained on", "patients held out"] if found.known("data.patients") else []
    heads = ["class", "slices trained on", "share", *people]
    note = f"\n\n{ONE_CLASS}" if people else ""
    return f"## Training data\n\n{split(run, found)}\n\n{_table(heads, rows)}{note}"


def _people_by_class(found: Facts, label: str) -> list[str]:
    if not found.known("data.patients"):
        return []
    sides = ("data.training.patients_by_class", "data.patients_by_class")
    return [str(found(f"{side}.{label}")) for side in sides]


def imbalance(found: Facts) -> str:
    """What the unequal classes did to each of them."""
    counts = {label: found(f"data.training.slices_by_class.{label}") for label in LABELS}
    most, least = max(LABELS, key=counts.__getitem__), min(LABELS, key=counts.__getitem__)
    ratio = found("data.training.largest_to_smallest")
    rows, counted = [], counted_by(found("data"))
    for label in LABELS:
        figures = [(found(f"slices.classes.{label}.{path}"), share) for _, path, share in OF_CLASS]
        people = resting_on(found(f"slices.classes.{label}.recall"))
        rows.append([label, *(spoken(figure, share) for figure, share in figures), *[people] * len(counted)])
    heads = ["class", *(name for name, _, _ in OF_CLASS), *counted]
    note = f"\n\n{whose(_unit(found))}" if counted else ""
    than = f"{most} has {ratio:.1f} times the slices of {least}."
    if none := [label for label in LABELS if not counts[label]]:
        than = f"No slice of {joined(none)} was trained on: the model cannot tell it."
    return (
        f"## What the imbalance does\n\n{than} Always answering the "
        f"largest class would be right for {number(found('slices.largest_class'), True)} of the held-out slices. By "
        f"class, on slices:\n\n{_table(heads, rows)}{note}"
    )


def figures(found: Facts) -> str:
    """The figures on what was held out, with intervals and the patients behind them."""
    known = found.known("patients")
    rows, heads = [], counted_by(found("data"))
    for name, path, share in ROWS:
        levels = [found(f"slices.{path}"), *([found(f"patients.{path}")] if known else [])]
        rows.append([name, *(spoken(figure, share) for figure in levels), *[resting_on(levels[-1])] * len(heads)])
    counted = found("slices.counted")
    chance = f" Chance of the balanced accuracy is {number(found('slices.chance'), True)}." if counted else ""
    means = f"Macro figures and balanced accuracy are means over {joined(counted)}.{chance}" if counted else ""
    heads = ["figure", "slices", *(["patients (mean over their slices)"] if known else []), *heads]
    return f"## Results on what was held out\n\n{_table(heads, rows)}\n\n{means}"


def calibration(run: Facts, found: Facts) -> str:
    """The temperature and what it does; the threshold and what it does."""
    if not found.known("calibration.after"):
        return (
            f"## Calibration\n\nNot judged. The temperature is {run('temperature'):.3f}; before it the expected "
            f"calibration error is {spoken(found('calibration.before.ece'), False)}."
        )
    rows = [
        [name, *(spoken(found(f"calibration.{side}.{path}"), False) for side in ("before", "after", "change"))]
        for name, path in CALIBRATION
    ]
    text = (
        f"## Calibration\n\nLogits are divided by {run('temperature'):.3f}, fitted on all held-out slices. The figures "
        f"are those of temperatures fitted on other {_unit(found)} than the ones they are of.\n\n"
        f"{_table(['slices', 'before', 'after', 'change'], rows)}"
    )
    if not found.known("abstention"):
        return f"{text}\n\nThe model never abstains."
    text += (
        f"\n\nIt abstains below a probability of {found('abstention.abstain_below'):.3f}, chosen for "
        f"{number(found('abstention.target_risk'), True)} wrong answers among those given."
    )
    if found.known("abstention.slices"):
        coverage, risk = found("abstention.slices.coverage"), found("abstention.slices.risk")
        text += (
            f" A threshold chosen on other {_unit(found)} "
            f"answered {spoken(coverage, True)} of the slices, of which {spoken(risk, True)} were wrong."
        )
    return text


def limits(found: Facts) -> str:
    """What the figures cannot say, that which was measured first."""
    lines = []
    count = len(found("data.sizes"))
    sizes = [tuple(found(f"data.sizes.{at}.{side}") for side in ("width", "height")) for at in range(min(count, 3))]
    said = joined([f"{width} × {height}" for width, height in sizes])
    lines.append(f"The pictures were {said} pixels{', and of other sizes' if count > 3 else ''}.")
    if found.known("data.patients"):
        for label in LABELS:
            trained, held = _people_by_class(found, label)
            if int(held) < found("method.least_patients"):
                lines.append(
                    f"{label}: {trained} patients trained on, {held} held out. Whether the model can "
                    "tell this stage is not known."
                )
    else:
        lines.append(
            "The number of patients is unknown: figures rest on groups, and none is about patients."
            if _unit(found) == "groups"
            else "The patients are unknown, so it is unknown how well the model does on new people."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in (*lines, *LIMITS))


def hyperparameters(run: Facts) -> str:
    """Every setting of the recipe."""
    rows: list[list[str]] = []
    for name, value in run("recipe").items():
        nested = value.items() if isinstance(value, dict) else [("", value)]
        rows += [[f"{name} {key}".strip().replace("_", " "), _plain(entry)] for key, entry in nested]
    rows += [[name, _plain(run(path))] for name, path in (("arithmetic", "arithmetic"), ("device", "device"))]
    rows += [[f"split {name}", _plain(run(f"split.{name}"))] for name in ("by", "fold", "seed")]
    return f"## Training\n\n{_table(['setting', 'value'], rows)}"


def _plain(value: Any) -> str:
    return "no" if value is None or value is False else "yes" if value is True else str(value)


def environment(run: Facts) -> str:
    """Energy, where it was measured."""
    if not run.known("energy", optional=True):
        return f"## Environmental impact\n\n{NOT_MEASURED}"
    return (
        f"## Environmental impact\n\n{run('energy.energy_kwh'):.4f} kWh and {run('energy.co2_kg'):.4f} kg of carbon "
        f"dioxide equivalents in {run('energy.seconds'):.0f} seconds, estimated by {run('energy.estimated_by')} for "
        f"the electricity of {run('energy.country')}."
    )


def method(found: Facts) -> str:
    """How the figures were made, and the control."""
    text = f"## How the figures were made\n\nBy neurostage {found('neurostage')} on {found('created')}. "
    if not counted_by(found("data")):
        return text + f"Intervals: {found('method.intervals')}."
    text += (
        f"Intervals are {number(found('method.level'), True)}, {found('method.intervals')}. Figures on "
        f"fewer than {found('method.least_patients')} "
        f"{_unit(found)} are not given."
    )
    if not found.known("control.permutation"):
        return text
    control = "control.permutation"
    luck = found(f"{control}.p")
    mean, score = (number(found(f"{control}.{name}"), True) for name in ("shuffled_mean", "score"))
    text += (
        f" With labels shuffled among patients {found(f'{control}.shuffles')} times, the balanced "
        f"accuracy of slices is {mean} on average, against {score} with the true ones (p = {luck:.3f})."
    )
    if found.known("control.memory"):
        right, chance = (number(found(f"control.memory.{name}"), True) for name in ("accuracy", "chance"))
        text += (
            f" A nearest neighbour that learns shuffled labels is right for {right} of the slices, where chance is "
            f"{chance}."
        )
    return text


def distribution(run: Facts, found: Facts) -> str:
    """The whole data by class."""
    rows = []
    for label in LABELS:
        slices, share = run(f"data.slices_by_class.{label}"), found(f"data.share_by_class.{label}")
        rows.append([label, str(slices), number(share, True), *_people_by_class(found, label)])
    people = ["patients trained on", "patients held out"] if found.known("data.patients") else []
    note = f"\n\n{ONE_CLASS}" if people else ""
    return f"## Classes\n\n{_table(['class', 'slices', 'share', *people], rows)}{note}"


def patients(run: Facts) -> str:
    """How many patients the data is of, in words."""
    if run.known("data.patients"):
        return f"{run('data.patients')} patients"
    if run.known("data.groups", optional=True):
        return f"an unknown number of patients, in {run('data.groups')} groups"
    return "an unknown number of patients"


_FROM = {
    "file": "a groups file that was given with the data",
    "table": "a column of the table that lists the slices",
    "participants": "participants.tsv",
    "dicom": "the patient ids of the DICOM headers, kept only as keyed digests",
    "names": "the ids in the file names",
    "pattern": "the ids that a given pattern finds in the file names",
    "folders": "the folder that each slice is in",
    "source": "the source itself",
}


def where_from(run: Facts) -> str:
    """Where the patients are known from."""
    kind, verdict = run("data.patients_told_by"), recorded_verdict(run.content)
    if kind == "pixels" and run.known("data.similarity", optional=True):
        run("data.similarity.verdict")
    if verdict == "unknown":
        if kind == "pixels":
            return "Unknown: the run identified them with a method of an earlier version that could be wrong."
        return "Unknown: the source has no ids, and image similarity does not identify the patients."
    if kind == "pixels":
        if verdict == "patients":
            return f"Identified from image similarity{_levels(run)}.{_error(run)}"
        return f"Groups from image similarity: each holds whole people, how many is not known.{_error(run)}"
    text = f"From {_FROM.get(kind, kind)}."
    if verdict == "groups":
        text += " An id may be that of a scan, or a group may hold several people, so their number is not known."
    if run.known("data.id_check", optional=True) and run("data.id_check.joined_ids"):
        text += (
            f" {run('data.id_check.joined_ids')} of {run('data.id_check.ids')} ids show a head that another id shows "
            "too; they were joined."
        )
    return text


def _error(run: Facts) -> str:
    """The stated probability that somebody is in two groups."""
    if not run.known("data.similarity", optional=True) or not run.known("data.similarity.error"):
        return ""
    return f" The probability that some person is in two groups is at most {run('data.similarity.error')!r}."


def _levels(run: Facts) -> str:
    """How similar slices of one patient and of two are."""
    if not run.known("data.similarity", optional=True) or not run.known("data.similarity.below"):
        return ""
    return (
        f": slices of different patients correlate at most {run('data.similarity.below'):.4f}, and each slice at least "
        f"{run('data.similarity.above'):.4f} with another of its patient"
    )


def _unit(found: Facts) -> str:
    """What figures rest on: ``patients`` or ``groups``."""
    return unit_of(found("data"))


def split(run: Facts, found: Facts) -> str:
    """Who was trained on and who was held out."""
    held = found("data.slices")
    unit = _unit(found)
    who = f" of {people_in(found('data'))}" if found.known(f"data.{unit}", optional=True) else ""
    text = (
        f"{found('data.training.slices')} slices were trained on and {held}{who} held out (split by {run('split.by')}, "
        f"fold {run('split.fold')}, seed {run('split.seed')})."
    )
    if not found.known("data.leaked"):
        return f"{text} How many people are in both is not known."
    leaked = number(found("data.leaked"), True)
    of = "are of a group" if unit == "groups" else "show a patient"
    return f"{text} {leaked} of the slices held out {of} that was trained on."


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
