"""Calibration images for int8 and fp8, and images to choose float32 layers on; both disjoint from comparison images."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.export.data.labelled import classes_of_run, labelled_samples
from stageproof.export.data.overlap import two_halves, without
from stageproof.export.data.run_data import run_data, side, with_patients
from stageproof.export.data.sampling import Drawn, over_people, spread, with_people
from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import LabelSet
from stageproof.train.data.samples import Samples

logger = logging.getLogger(__name__)

CALIBRATED = ("int8", "fp8")
"""Precisions whose activation ranges are computed from images."""
CALIBRATION = 256
"""Maximum number of calibration images."""
LEAST_CALIBRATION = 100
SELECTION = 256
"""Maximum number of images to choose float32 layers on."""


def calibration_samples(
    run: Path | None,
    given: Path | None,
    limit: int = CALIBRATION,
    selection: int = SELECTION,
    moved: Path | None = None,
    compared: Collection[str] = (),
    classes: LabelSet | None = None,
) -> tuple[Samples, Samples]:
    """(calibration slices, selection slices): training slices of the run, or of `given`.

    At most `limit` slices for calibration, stratified by class, and at most `selection` other slices to choose float32
    layers on. With four or more known patients, both sets have different patients (`Samples.groups`); otherwise at
    most half of the slices are used for calibration.

    moved: data named by the user, possibly the run's own data at a new path.
    compared: `export.data.overlap.pixel_digests` of the comparison images. These images are left out; their
        number is logged.
    classes: the model's label set; None: that of the run, else of the data.

    Raises what `calibration_pool` raises; random data or another data set is never substituted.
    """
    pool = calibration_pool(run, given, moved, classes)
    samples, people = pool.samples, pool.samples.groups
    others = None if people is None else two_halves(people, samples.labels)
    if people is not None and others is not None and int((~others).sum()) >= LEAST_CALIBRATION:
        own = np.flatnonzero(~others)
        first = own[_stratified(samples.labels[own], limit)]
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
        duplicates = (
            f"{repeated} of {sum(map(len, chosen))} calibration images of {samples.source} are identical to comparison "
            "images"
        )
        if any(2 * len(some) < len(every) for some, every in zip(left, chosen, strict=True)):
            raise DatasetError(
                f"{duplicates}, and too few others remain. Calibrate and compare on different images: "
                "--calibration-data, --parity-data. Nothing was built."
            )
        logger.info(f"{duplicates}: left out")
    return left


def calibration_pool(
    run: Path | None, given: Path | None, moved: Path | None = None, classes: LabelSet | None = None
) -> Drawn:
    """All slices available for calibration. classes: as for `calibration_samples`.

    Raises DatasetError if there are fewer than 101, and for images of classes that the model does not have.
    """
    if given is not None:
        classes = classes_of_run(run) if classes is None and run else classes
        pool = with_people(labelled_samples(given, classes), by_similarity=False)
    elif run is None:
        raise DatasetError(
            "int8 and fp8 are calibrated on training images, and a checkpoint without a run names none. Give some of "
            "its training images: --calibration-data DIR_OR_PARQUET. Nothing was built."
        )
    else:
        data = run_data(run, moved)
        if data.samples is None:
            raise DatasetError(
                f"int8 and fp8 are calibrated on training slices, and {data.problem}. Put the data back, give its new "
                "path (--data PATH), or give --calibration-data DIR_OR_PARQUET. Nothing was built."
            )
        pool = with_patients(run, side(run, data.samples, "training"))
    check_calibration(len(pool.samples), pool.samples.source)
    return pool


def check_calibration(count: int, source: str) -> None:
    """Raise DatasetError if `count` images are too few to calibrate on and to choose float32 layers on."""
    if count <= LEAST_CALIBRATION:
        raise DatasetError(
            f"{source} has {count} calibration images; more than {LEAST_CALIBRATION} are needed, since additional ones "
            "select the layers kept in float32. Give more: --calibration-data DIR_OR_PARQUET."
        )


def _stratified(labels: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` positions: an equal number of each class as far as available, filled up evenly from the rest."""
    share = max(1, limit // len(np.unique(labels)))
    chosen = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    equal = np.concatenate([where[spread(len(where), share)] for where in chosen])
    rest = np.setdiff1d(np.arange(len(labels)), equal)
    room = limit - len(equal)
    more = rest[spread(len(rest), room)] if room > 0 and len(rest) else rest[:0]
    return np.sort(np.concatenate([equal, more]))
