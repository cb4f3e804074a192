"""`populations`: how other data differs from the data of the run: classes, sizes, age and sex, and what the guard says.

The guard is fitted as that of a bundle (`runtime.guard`): on training slices of the run. Its scores of the run's
validation slices, whose patients it has not seen, are what those of the other slices are compared with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import ImageError, InputError
from stageproof.runtime.guard.ood_guard import Guard, fit
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.age_and_sex import traits_of
from stageproof.train.evaluate.demographics import by_patient, described
from stageproof.train.runs.record import data_path, recorded_verdict
from stageproof.train.runs.split_file import read_split
from stageproof.train.terminal.bars import bar
from stageproof.train.test_set.held_out import HeldOut, image_sizes

logger = logging.getLogger(__name__)

FITTED, SCORED = 2048, 1024
"""Maximum number of training slices that the guard is fitted on, and of slices of each side that it scores; evenly
spaced over the data."""
DIFFERENT = 0.05
"""A difference of the shares rejected by the guard above which the evaluation warns."""
_QUANTILES = {"low": 0.05, "median": 0.5, "high": 0.95}


def populations(run: Path, record: Mapping[str, Any], held: HeldOut, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The differences, JSON-serialisable; None if `held` are the slices that the run held out.

    facts: content of `evaluation.json` so far, with ``data`` and ``demographics``.
    """
    if held.own:
        return None
    whole, here = record["data"]["slices_by_class"], facts["data"]["slices_by_class"]
    total, count = max(1, sum(whole.values())), max(1, sum(here.values()))
    # The parts of run and of the evaluation have the same keys, so that the report has two columns.
    found: dict[str, Any] = {
        "slices": {"run": sum(whole.values()), "here": sum(here.values())},
        "classes": {label: {"run": whole[label] / total, "here": here[label] / count} for label in here},
        "sizes": {"run": None, "here": facts["data"]["sizes"]},
        "patients": {"run": None, "here": None},
        "guard": None,
        "why_no_guard": "the data of the run no longer exists or has changed",
    }
    if facts.get("demographics"):
        part = next(one for one in facts["demographics"]["parts"] if one["name"] == "evaluated")
        found["patients"]["here"] = {key: part[key] for key in ("patients", "age", "sex")}
    if held.run_samples is not None:
        found["sizes"]["run"] = [
            {"width": width, "height": height, "slices": number}
            for width, height, number in image_sizes(held.run_samples)
        ]
        found["patients"]["run"] = _patients(run, record, held.run_samples)
        assert held.samples is not None, "other data has samples"
        found |= _guarded(run, held.run_samples, held.samples)
    return found


def warning(found: Mapping[str, Any] | None) -> list[str]:
    """The warning if many more of these slices than of the run's own are out of distribution."""
    guard = found["guard"] if found else None
    if guard is None or guard["rejected"]["here"] - guard["rejected"]["run"] <= DIFFERENT:
        return []
    return [
        f"ANOTHER POPULATION: {guard['rejected']['here']:.1%} of these slices are above a limit of the guard, and "
        f"{guard['rejected']['run']:.1%} of the validation slices of the run. The images differ from those trained on, "
        "and the guard of a bundle would reject them."
    ]


def _patients(run: Path, record: Mapping[str, Any], samples: Samples) -> dict[str, Any] | None:
    """Age and sex of the patients of the run; None if patients are unknown or neither is recorded."""
    split = read_split(run)
    traits = traits_of(data_path(run, record), list(split))
    if traits is None or recorded_verdict(dict(record)) != "patients":
        return None
    people = np.unique([patient for patient, _ in split.values()], return_inverse=True)[1].astype(np.int64)
    return described(*by_patient(traits, people))


def _guarded(run: Path, own: Samples, other: Samples) -> dict[str, Any]:
    """The entries ``guard`` and ``why_no_guard``."""
    split = read_split(run)
    sides = np.array([split.get(name, ("", ""))[1] for name in own.names])
    training, validation = (own.select(np.flatnonzero(sides == side)) for side in ("training", "validation"))
    training, validation, other = (
        samples.select(_spread(len(samples), limit))
        for samples, limit in ((training, FITTED), (validation, SCORED), (other, SCORED))
    )
    logger.info(
        f"fitting a guard on {len(training)} training slices; scoring {len(validation)} validation slices of the run "
        f"and {len(other)} of these"
    )
    with bar("images for the guard", len(training) + len(validation) + len(other)) as advance:
        decoded = dict(_images(training, advance))
        people = np.array([split[training.names[at]][0] or training.names[at] for at in decoded])
        try:
            guard = fit(decoded.values(), np.unique(people, return_inverse=True)[1] if len(people) else None)
        except InputError as error:
            return {"guard": None, "why_no_guard": f"no guard can be fitted on the training slices: {error}"}
        decoded.clear()
        scored = [[guard.scores(image) for _, image in _images(one, advance)] for one in (validation, other)]
    if not all(scored):
        return {"guard": None, "why_no_guard": "a side has no readable slice"}
    return {"guard": _summary(guard, *scored), "why_no_guard": None}


def _summary(guard: Guard, run: list[dict[str, float]], here: list[dict[str, float]]) -> dict[str, Any]:
    sides = {"run": run, "here": here}
    scores = {}
    for code, limit in guard.thresholds.items():
        of_sides = {}
        for side, rows in sides.items():
            values = np.array([row[code] for row in rows])
            cuts = {name: float(np.quantile(values, at)) for name, at in _QUANTILES.items()}
            of_sides[side] = {"above": float((values > limit).mean()), **cuts}
        scores[code] = {"limit": float(limit), **of_sides}
    return {
        "fitted_on": dict(guard.fitted),
        "scored": {side: len(rows) for side, rows in sides.items()},
        "rejected": {
            side: float(np.mean([guard.judge(row) is not None for row in rows])) for side, rows in sides.items()
        },
        "scores": scores,
    }


def _images(samples: Samples, advance: Callable[[], None]) -> Iterator[tuple[int, Image.Image]]:
    """(position, decoded image) of the slices that can be read; the others are counted by the evaluation."""
    for at in range(len(samples)):
        advance()
        try:
            image = read_isolated(samples.read(at)).image
        except (ImageError, OSError):
            continue
        yield at, image


def _spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` positions, evenly spaced over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))
