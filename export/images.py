"""The images of one export: those that parity is measured on, and those that int8 is calibrated on. Never the same."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtime.errors import DatasetError, ImageError
from runtime.images import read_image
from runtime.preprocess import InputSpec, preprocess
from train.data.phantom import phantom_samples
from train.data.samples import Samples
from train.data.sources import load_samples
from train.record import data_path, read_record

CALIBRATION = 256
"""Images to calibrate on, where there are as many."""
LEAST_CALIBRATION = 100
SELECTION = 256
"""Images to choose float layers on, where there are as many."""
SEED = 7919
"""Phantoms of this seed are nobody's training data: python -m train counts its seeds from 0."""


def parity_samples(run: Path | None, limit: int, given: Path | None = None) -> tuple[Samples, bool]:
    """At most `limit` slices to compare on, and whether their labels are known.

    given: the user's own images. Without it: slices the run did not train on, phantoms where its data is not at hand.
    """
    if given is not None:
        if given.is_dir() and not any(path.is_dir() for path in given.iterdir()):
            return _unlabelled(given, limit), False
        samples = load_samples(given)
        return samples.select(_spread(len(samples), limit)), True
    return (_held_out(run, limit) if run else phantoms(limit)), True


def phantoms(limit: int) -> Samples:
    """At most `limit` phantom slices, the same ones each time."""
    samples = phantom_samples(patients=max(1, -(-limit // 16)), slices=4, seed=SEED)
    return samples.select(_spread(len(samples), limit))


def preprocessed(samples: Samples, spec: InputSpec) -> np.ndarray:
    """(N, C, H, W) float32, through the same reading and preprocessing that Predictor uses."""
    images = []
    for index, name in enumerate(samples.names):
        try:
            images.append(preprocess(read_image(samples.read(index)), spec))
        except (ImageError, OSError) as error:
            raise DatasetError(f"{name} of {samples.source} cannot be compared on: {error}") from error
    return np.stack(images)


def calibration_samples(
    run: Path | None, given: Path | None, limit: int = CALIBRATION, selection: int = SELECTION
) -> tuple[Samples, Samples]:
    """Slices to calibrate int8 on, and others to choose its float layers on: training slices of the run, or `given`.

    At most `limit` of the first, every class with its share, and no more than half of what there is, so that there are
    others; at most `selection` of those.

    Raises DatasetError when neither is at hand or they are fewer than 100: never random numbers, never another set.
    """
    if given is not None:
        samples = load_samples(given)
    elif run is None:
        raise DatasetError(
            "int8 is calibrated on training images, and a checkpoint without a run names none. Give some of its "
            "training images: --calibration-data DIR_OR_PARQUET."
        )
    else:
        data = _data_of(run)
        if data is None:
            raise DatasetError(
                f"int8 is calibrated on the training slices of {run}, which are no longer where it found them: "
                f"{data_path(run, read_record(run))}. Put them back, or give --calibration-data."
            )
        samples = _side(run, data, "training")
    if len(samples) < LEAST_CALIBRATION:
        raise DatasetError(
            f"{samples.source} has {len(samples)} images to calibrate int8 on; at least {LEAST_CALIBRATION} are needed."
        )
    first = _stratified(samples.labels, min(limit, max(LEAST_CALIBRATION, len(samples) // 2)))
    others = np.setdiff1d(np.arange(len(samples)), first)
    if not len(others):
        raise DatasetError(
            f"{samples.source} has {len(samples)} images, all of which calibrate int8; none is left to choose on which "
            "layers stay in float. Give more: --calibration-data DIR_OR_PARQUET."
        )
    return samples.select(first), samples.select(others[_spread(len(others), selection)])


def training_samples(run: Path, limit: int) -> Samples | None:
    """At most `limit` of the run's training slices with their patients as groups; None where they are not at hand."""
    data = _data_of(run)
    if data is None:
        return None
    samples = _side(run, data, "training")
    samples = samples.select(_spread(len(samples), limit))
    with (run / "split.csv").open(newline="", encoding="utf-8") as file:
        patients = {row["name"]: row["patient"] for row in csv.DictReader(file)}
    _, groups = np.unique([patients[name] for name in samples.names], return_inverse=True)
    return replace(samples, groups=groups.astype(np.int64))


def _data_of(run: Path) -> Samples | None:
    """All slices of the run's data, or None where the data is not at hand."""
    record = read_record(run)
    path = data_path(run, record)
    if path is None:
        return phantom_samples(seed=record["options"]["seed"])
    return load_samples(path) if path.exists() else None


def _held_out(run: Path, limit: int) -> Samples:
    data = _data_of(run)
    if data is None:
        return phantoms(limit)
    held = _side(run, data, "validation")
    return held.select(_spread(len(held), limit))


def _side(run: Path, samples: Samples, side: str) -> Samples:
    """The slices that the run's split.csv puts on `side`."""
    with (run / "split.csv").open(newline="", encoding="utf-8") as file:
        names = {row["name"] for row in csv.DictReader(file) if row["side"] == side}
    indices = np.array([index for index, name in enumerate(samples.names) if name in names], np.int64)
    if not len(indices):
        raise DatasetError(f"{samples.source} holds none of the slices that {run} used for {side}. Has it changed?")
    return samples.select(indices)


def _unlabelled(folder: Path, limit: int) -> Samples:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DatasetError(f"{folder} holds no image. Give images, class folders, or a parquet file.")
    samples = Samples(files, np.zeros(len(files), np.int64), [path.name for path in files], None, str(folder))
    return samples.select(_spread(len(files), limit))


def _spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` positions, evenly spread over `count`, so that every class and patient keeps its share."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def _stratified(labels: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` positions: as many of each class as there are, up to an equal share, then filled up evenly."""
    share = max(1, limit // len(np.unique(labels)))
    chosen = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    equal = np.concatenate([where[_spread(len(where), share)] for where in chosen])
    rest = np.setdiff1d(np.arange(len(labels)), equal)
    room = limit - len(equal)
    more = rest[_spread(len(rest), room)] if room > 0 and len(rest) else rest[:0]
    return np.sort(np.concatenate([equal, more]))
