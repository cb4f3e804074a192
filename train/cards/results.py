"""Sections of the model card with figures: by class, overall, calibration, and how they were made."""

from __future__ import annotations

from stageproof.runtime.labels import LABELS
from stageproof.train.cards.data import people_by_class
from stageproof.train.cards.markdown import table
from stageproof.train.cards.text import LIMITS
from stageproof.train.reports.calibration_text import calibration_heads, calibration_rows, guarantee, studies_by
from stageproof.train.reports.facts import CardError, Facts
from stageproof.train.reports.formatting import (
    CALIBRATION,
    OF_CLASS,
    ROWS,
    counted_by,
    joined,
    number,
    resting_on,
    spoken,
    unit_of,
    whose,
)


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
    note = f"\n\n{whose(unit_of(found('data')))}" if counted else ""
    than = f"{most} has {ratio:.1f} times the slices of {least}."
    if none := [label for label in LABELS if not counts[label]]:
        than = f"No slice of {joined(none)} was trained on: the model cannot tell it."
    return (
        f"## What the imbalance does\n\n{than} Always answering the "
        f"largest class would be right for {number(found('slices.largest_class'), True)} of the held-out slices. By "
        f"class, on slices:\n\n{table(heads, rows)}{note}"
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
    heads = ["figure", "slices", *(["patients (studies of their slices)"] if known else []), *heads]
    return f"## Results on what was held out\n\n{table(heads, rows)}\n\n{means}"


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
        f"## Calibration\n\nLogits are divided by {run('temperature'):.3f}, fitted on held-out slices. The figures "
        f"are those of temperatures fitted on other {unit_of(found('data'))} than the ones they are of.\n\n"
        f"{table(['slices', 'before', 'after', 'change'], rows)}"
    )
    for side in ("before", "after"):
        ece = found(f"calibration.{side}.ece")
        if ece["value"] is None and "raw" in ece:  # its band is no reason for a missing value
            raise CardError(
                f"calibration.{side}.ece of {found.name} is {ece!r}, which no card can say. Evaluate again."
            )
    try:
        text += _against_chance(found)
        if not found.known("abstention"):
            return f"{text}\n\nThe model never abstains."
        text += f"\n\n{guarantee(found('abstention'))} Of those {unit_of(found('data'))} it answered "
    except (KeyError, TypeError) as error:
        raise CardError(f"{found.name} lacks {error}, which the card needs. Evaluate the run again.") from error
    parts = [
        f"{spoken(found(f'abstention.{level}.coverage'), True)} of the {name} (wrong: "
        f"{spoken(found(f'abstention.{level}.risk'), True)})"
        for level, name in (("slices", "slices"), ("patients", "studies"))
    ]
    return f"{text}{joined(parts)}."


def _against_chance(found: Facts) -> str:
    """Calibration of slices and of studies, compared with what calibrated probabilities would show."""
    rows = calibration_rows(found("calibration"))
    if len(rows[0]) == 1:
        return ""
    heads = ["calibration", *calibration_heads(found("calibration"))[1:]]
    said = f"{studies_by(found('calibration'))} Skill is what is gained over the prevalence."
    return f"\n\n{said}\n\n{table(heads, rows)}"


def limits(found: Facts) -> str:
    """What the figures cannot say, that which was measured first."""
    lines = []
    count = len(found("data.sizes"))
    sizes = [tuple(found(f"data.sizes.{at}.{side}") for side in ("width", "height")) for at in range(min(count, 3))]
    said = joined([f"{width} × {height}" for width, height in sizes])
    lines.append(f"The pictures were {said} pixels{', and of other sizes' if count > 3 else ''}.")
    if found.known("data.patients"):
        for label in LABELS:
            trained, held = people_by_class(found, label)
            if int(held) < found("method.least_patients"):
                lines.append(
                    f"{label}: {trained} patients trained on, {held} held out. Whether the model can "
                    "tell this stage is not known."
                )
    else:
        lines.append(
            "The number of patients is unknown: figures rest on groups, and none is about patients."
            if unit_of(found("data")) == "groups"
            else "The patients are unknown, so it is unknown how well the model does on new people."
        )
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in (*lines, *LIMITS))


def method(found: Facts) -> str:
    """How the figures were made, and the control."""
    text = f"## How the figures were made\n\nBy stageproof {found('stageproof')} on {found('created')}. "
    if not counted_by(found("data")):
        return text + f"Intervals: {found('method.intervals')}."
    text += (
        f"Intervals are {number(found('method.level'), True)}, {found('method.intervals')}. Figures on "
        f"fewer than {found('method.least_patients')} "
        f"{unit_of(found('data'))} are not given."
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
    if found.known("control.identity"):
        shown = number(found("control.identity.shown"), True)
        text += f" By the images alone, without ids, {shown} of the slices match a training slice."
    return text
