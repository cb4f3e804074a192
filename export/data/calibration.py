"""The images that 8 bits are calibrated on, and those that float layers are chosen on: never those compared on."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.export.data.overlap import two_halves, without
from stageproof.export.data.run_data import run_data, side, with_patients
from stageproof.export.data.sampling import Drawn, over_people, spread, with_people
from stageproof.runtime.errors import DatasetError
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import load_samples

CALIBRATED = ("int8", "fp8")
"""Precisions whose ranges are taken from images."""
CALIBRATION = 256
"""Images to calibrate on, where there are as many."""
LEAST_CALIBRATION = 100
SELECTION = 256
"""Images to choose float layers on, where there are as many."""


def calibration_samples(
    run: Path | None,
    given: Path | None,
    limit: int = CALIBRATION,
    selection: int = SELECTION,
    moved: Path | None = None,
    compared: Collection[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Samples, Samples]:
    """Slices to calibrate int8 on, and others to choose its float layers on: training slices of the run, or `given`.

    At most `limit` of the first, every class with its share, and at most `selection` of the others: of other people
    where the people are known and four or more, as `Samples.groups` of both then says. Without that the first are no
    more than half of what there is, so that there are others.

    moved: data that the user names, which may be the run's own in another place.
    compared: `export.data.overlap.pixel_digests` of the images that artifacts are compared on. Those are left out, and
    `say`
        takes how many there were.

    Raises what `calibration_pool` raises: never random numbers, never another set.
    """
    pool = calibration_pool(run, given, moved)
    samples, people = pool.samples, pool.samples.groups
    others = None if people is None else two_halves(people, samples.labels)
    if people is not None and others is not None and int((~others).sum()) >= LEAST_CALIBRATION:
        mine = np.flatnonzero(~others)
        first = mine[_stratified(samples.labels[mine], limit)]
        rest = np.flatnonzero(others)
        second = rest[over_people(people[rest], selection)]
    else:
        samples = replace(samples, groups=None)
        first = _stratified(samples.labels, min(limit, max(LEAST_CALIBRATION, len(samples) // 2)))
        rest = np.setdiff1d(np.arange(len(samples)), first)
        second = rest[spread(len(rest), selection)]
    chosen = (samples.select(first), samples.select(second))
    left = (without(chosen[0], compared), without(chosen[1], compared))
    if repeated := sum(map(len, chosen)) - sum(map(len, left)):
        said = f"{repeated} of {sum(map(len, chosen))} images of {samples.source} to calibrate 8 bits on"
        if any(2 * len(some) < len(every) for some, every in zip(left, chosen, strict=True)):
            raise DatasetError(
                f"{said} have the pixels of images that artifacts are compared on, and the others are too few. "
                "Calibrate and compare on different images: --calibration-data, --parity-data. Nothing was built."
            )
        say(f"{said} have the pixels of images compared on: left out")
    return left


def calibration_pool(run: Path | None, given: Path | None, moved: Path | None = None) -> Drawn:
    """All slices that int8 may be calibrated on. Raises DatasetError when there are none or they are fewer than 101."""
    if given is not None:
        pool = with_people(load_samples(given), look=False)
    elif run is None:
        raise DatasetError(
            "int8 is calibrated on training images, and a checkpoint without a run names none. Give some of its "
            "training images: --calibration-data DIR_OR_PARQUET. Nothing was built."
        )
    else:
        data = run_data(run, moved)
        if data.samples is None:
            raise DatasetError(
                f"int8 is calibrated on training slices, and {data.problem}. Put the data back, say where it is now "
                "(--data PATH), or give --calibration-data DIR_OR_PARQUET. Nothing was built."
            )
        pool = with_patients(run, side(run, data.samples, "training"))
    check_calibration(len(pool.samples), pool.samples.source)
    return pool


def check_calibration(count: int, source: str) -> None:
    """Raise DatasetError unless so many images are enough to calibrate int8 on and to choose its float layers on."""
    if count <= LEAST_CALIBRATION:
        raise DatasetError(
            f"{source} has {count} images to calibrate int8 on; more than {LEAST_CALIBRATION} are needed, since others "
            "choose which layers stay in float32. Give more: --calibration-data DIR_OR_PARQUET."
        )


def _stratified(labels: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` positions: as many of each class as there are, up to an equal share, then filled up evenly."""
    share = max(1, limit // len(np.unique(labels)))
    chosen = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    equal = np.concatenate([where[spread(len(where), share)] for where in chosen])
    rest = np.setdiff1d(np.arange(len(labels)), equal)
    room = limit - len(equal)
    more = rest[spread(len(rest), room)] if room > 0 and len(rest) else rest[:0]
    return np.sort(np.concatenate([equal, more]))
