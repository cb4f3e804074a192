"""The images parity is measured on: slices the run did not train on where its data is at hand, phantoms otherwise."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from runtime.errors import DatasetError
from runtime.images import read_image
from runtime.preprocess import InputSpec, preprocess
from train.checkpoint import read_record
from train.data.phantom import phantom_samples
from train.data.samples import Samples
from train.data.sources import load_samples

LIMIT = 512
SEED = 7919
"""Phantoms of this seed are nobody's training data: python -m train counts its seeds from 0."""


def parity_samples(run: Path | None, limit: int = LIMIT) -> Samples:
    """At most `limit` slices: the run's own validation slices, else phantoms."""
    return _held_out(run, limit) if run else phantoms(limit)


def phantoms(limit: int = LIMIT) -> Samples:
    """At most `limit` phantom slices, the same ones each time."""
    samples = phantom_samples(patients=max(1, -(-limit // 16)), slices=4, seed=SEED)
    return samples.select(_spread(len(samples), limit))


def preprocessed(samples: Samples, spec: InputSpec) -> np.ndarray:
    """(N, C, H, W) float32, through the same reading and preprocessing that Predictor uses."""
    return np.stack([preprocess(read_image(samples.read(index)), spec) for index in range(len(samples))])


def _held_out(run: Path, limit: int) -> Samples:
    record = read_record(run)
    path = record["options"]["data"]
    if path is None:
        samples = phantom_samples(seed=record["options"]["seed"])
    elif Path(path).exists():
        samples = load_samples(Path(path))
    else:
        return phantoms(limit)
    with (run / "split.csv").open(newline="", encoding="utf-8") as file:
        held = {row["name"] for row in csv.DictReader(file) if row["side"] == "validation"}
    indices = np.array([index for index, name in enumerate(samples.names) if name in held], np.int64)
    if not len(indices):
        raise DatasetError(f"{path} holds none of the slices that {run} kept for validation. Has it changed?")
    return samples.select(indices[_spread(len(indices), limit)])


def _spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` positions, evenly spread over `count`, so that every class and patient keeps its share."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))
