"""The slices that a run is judged on: those it held out, or other data without anybody the run has seen."""

from __future__ import annotations

import csv
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.digests import sha256_file
from runtime.errors import CheckpointError, DatasetError, ImageError
from runtime.images import read_image
from runtime.labels import LABELS
from runtime.preprocess import InputSpec
from train.checkpoint import WEIGHTS, load_weights
from train.compute import choose_compute
from train.data.batches import Batches
from train.data.groups import with_groups
from train.data.loader import Slices, safe_loader, thumbnails_only
from train.data.patients import directions, tell_apart
from train.data.phantom import phantom_samples
from train.data.samples import Samples
from train.data.sources import load_samples
from train.loop import predict
from train.models import build
from train.record import data_path
from train.weight_files import read_state

SPLIT = "split.csv"
SAME_PICTURE = 0.999
"""Correlation of thumbnails from which two slices are one picture, saved twice."""


@dataclass(frozen=True)
class HeldOut:
    """Slices to judge a run on; position i of every array is the same slice."""

    slices: Slices
    """Decoded at the network's size."""
    patients: np.ndarray | None
    """(N,) int64 from 0, equal for slices of one patient; None when nobody knows who is who."""
    told_by: str
    """What told the patients apart: ``file``, ``source``, ``pixels``, or ``nothing``, as in `train.data.prepare`."""
    source: str
    digest: str
    own: bool
    """Whether these are the slices that the run itself held out."""
    leaked: float | None
    """Share of these slices whose patient the run was trained on, in [0, 1]; None when that cannot be known."""
    seen: int
    """Slices of other data left out, because they show somebody of the run's own data."""
    unreadable: int
    training: Slices | None
    """The slices the run was trained on (pixels not of the network's size); None when they are not at hand."""
    training_patients: np.ndarray | None
    """(M,) int64, numbered as `patients` are; None where either is not known."""
    sizes: tuple[tuple[int, int, int], ...]
    """(width, height, how many) of the pictures as they were found, the commonest first; of 256 at most."""


def held_out(
    run: Path, record: dict[str, Any], data: Path | None, groups: Path | None = None, max_unreadable: float = 0.05
) -> HeldOut:
    """What the run held out, or the slices of `data` that show nobody of the run's own data.

    record: the content of its `run.json`.
    groups: a file that says who is who among these slices; None believes the run of its own data, or the pixels.

    Raises DatasetError when the data has changed since the run, cannot be read, or leaves nothing that is new to the
    run; CheckpointError when the run does not say what it held out.
    """
    spec = InputSpec.from_dict(record["input"])
    recorded = data_path(run, record)
    samples = load_samples(data) if data else _own_samples(record, recorded)
    digest = samples.digest()
    if groups is not None:
        samples = with_groups(samples, groups)
    told_by_file = groups is not None
    if digest == record["data"]["digest"]:
        return _own(run, record, samples, digest, spec, max_unreadable, told_by_file)
    if data is None or (recorded is not None and recorded.exists() and data.resolve() == recorded.resolve()):
        raise DatasetError(
            f"{samples.source} has changed since {run} was trained on it: its digest is {digest[:12]}…, the run's "
            f"{record['data']['digest'][:12]}…. What the run held out can no longer be told. Bring the data back, or "
            "give other data with --data."
        )
    own = _own_samples(record, recorded) if recorded is None or recorded.exists() else None
    if own is not None and own.digest() != record["data"]["digest"]:
        own = None
    return _other(run, record, samples, digest, own, spec, max_unreadable, told_by_file)


def ask(run: Path, record: dict[str, Any], slices: Slices, batch_size: int = 32) -> np.ndarray:
    """(N, classes) float32 logits, before temperature, of the run's network in float32.

    Raises CheckpointError when its weights are not those that the record names.
    """
    path = run / WEIGHTS
    state = read_state(path)
    if (found := sha256_file(path)) != record["weights_sha256"]:
        raise CheckpointError(
            f"{path} has SHA-256 {found[:12]}…, the run's record says {record['weights_sha256'][:12]}…: the weights "
            "were changed after training. Train again."
        )
    model = build(record["architecture"])
    load_weights(model, state, path)
    device = choose_compute("auto", "fp32").device
    model.to(device).to(memory_format=torch.channels_last)
    pixels, labels = torch.from_numpy(slices.pixels), torch.from_numpy(slices.labels)
    spec = InputSpec.from_dict(record["input"])
    return predict(model, Batches(pixels, labels, spec, batch_size, device=device))[0]


def _own_samples(record: dict[str, Any], recorded: Path | None) -> Samples:
    if recorded is None:
        return phantom_samples(seed=record["options"]["seed"])
    if not recorded.exists():
        raise DatasetError(f"The run's data is no longer at {recorded}. Say where it is: --data DIR_OR_PARQUET.")
    return load_samples(recorded)


def _own(
    run: Path,
    record: dict[str, Any],
    samples: Samples,
    digest: str,
    spec: InputSpec,
    max_unreadable: float,
    told_by_file: bool,
) -> HeldOut:
    dealt = read_split(run)
    sides = np.array([dealt.get(name, ("", "unreadable"))[1] for name in samples.names])
    if not (sides == "validation").any() or not (sides == "training").any():
        raise CheckpointError(f"{run / SPLIT} does not deal the slices of {samples.source} to two sides. Train again.")
    chosen = samples.select(np.flatnonzero(sides == "validation"))
    slices, unreadable = safe_loader(chosen, spec, max_unreadable)
    training, _ = thumbnails_only(samples.select(np.flatnonzero(sides == "training")), max_unreadable)
    names = (*slices.names, *training.names)
    if told_by_file:
        assert samples.groups is not None, "the file was read"
        who = dict(zip(samples.names, map(str, samples.groups), strict=True))
    else:
        who = {name: patient for name, (patient, _) in dealt.items()}
    people = np.unique([who[name] for name in names], return_inverse=True)[1].astype(np.int64)
    held = np.unique(people[: len(slices)])
    number = np.empty(people.max() + 1, np.int64)
    number[np.concatenate([held, np.setdiff1d(people, held)])] = np.arange(len(number))  # those held out come first
    mine, theirs = number[people[: len(slices)]], number[people[len(slices) :]]
    told_by = "file" if told_by_file else record["data"]["patients_told_by"]
    known = told_by != "nothing"
    return HeldOut(
        slices,
        mine if known else None,
        told_by,
        samples.source,
        digest,
        own=True,
        leaked=float(np.isin(mine, theirs).mean()) if known else None,
        seen=0,
        unreadable=len(unreadable),
        training=training,
        training_patients=theirs if known else None,
        sizes=_sizes(chosen),
    )


def _other(
    run: Path,
    record: dict[str, Any],
    samples: Samples,
    digest: str,
    own: Samples | None,
    spec: InputSpec,
    max_unreadable: float,
    told_by_file: bool,
) -> HeldOut:
    slices, unreadable = safe_loader(samples, spec, max_unreadable)
    likeness = tell_apart(slices.thumbnails) if slices.groups is None else None
    groups = slices.groups if likeness is None else likeness.groups
    assert groups is not None, "told apart above, where the source did not"
    known = likeness is None or likeness.found
    leaked, kept = None, np.ones(len(slices), bool)
    if own is not None:
        same = _as_like_as_one_person(record)
        alike = _most_alike(slices.thumbnails, thumbnails_only(own, 1.0)[0].thumbnails) >= same
        kept = ~np.isin(groups, groups[alike])
        leaked = 0.0
    if not kept.any():
        raise DatasetError(
            f"Every slice of {samples.source} shows somebody of the data that {run} was made with, so it says nothing "
            "about new patients. Leave --data out to evaluate the slices that the run held out."
        )
    rows = np.flatnonzero(kept)
    left = Slices(
        slices.pixels[rows],
        slices.thumbnails[rows],
        slices.labels[rows],
        tuple(slices.names[row] for row in rows),
        groups[rows],
    )
    return HeldOut(
        left,
        np.unique(groups[rows], return_inverse=True)[1].astype(np.int64) if known else None,
        "file" if told_by_file else "source" if likeness is None else "pixels" if known else "nothing",
        samples.source,
        digest,
        own=False,
        leaked=leaked,
        seen=int((~kept).sum()),
        unreadable=len(unreadable),
        training=None,
        training_patients=None,
        sizes=_sizes(samples),
    )


def read_split(run: Path) -> dict[str, tuple[str, str]]:
    """Slice name → patient and side."""
    try:
        with (run / SPLIT).open(newline="", encoding="utf-8") as file:
            return {row["name"]: (row["patient"], row["side"]) for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{run / SPLIT} cannot be read: {error}. It says which slices were held out; without it none of them can "
            "be told from those trained on."
        ) from error


def _as_like_as_one_person(record: dict[str, Any]) -> float:
    """Correlation of thumbnails from which the run's own data calls two slices one person's."""
    similarity = record["data"].get("similarity") or record["data"].get("likeness") or {}  # 0.1 wrote likeness
    if similarity.get("verdict") == "patients" or similarity.get("found"):
        return float(similarity["below"] + similarity["above"]) / 2
    return SAME_PICTURE


def _most_alike(thumbnails: np.ndarray, others: np.ndarray, block: int = 1024) -> np.ndarray:
    """(N,) float32: the highest correlation of each thumbnail with any of the others."""
    mine, theirs = directions(thumbnails), directions(others)
    return np.concatenate([(mine[at : at + block] @ theirs.T).max(1) for at in range(0, len(mine), block)])


def _sizes(samples: Samples) -> tuple[tuple[int, int, int], ...]:
    found: Counter[tuple[int, int]] = Counter()
    for index in np.unique(np.linspace(0, len(samples) - 1, min(len(samples), 256)).astype(int)):
        with suppress(ImageError, OSError):  # counted as unreadable already
            found[read_image(samples.read(index)).size] += 1
    return tuple((width, height, count) for (width, height), count in found.most_common())


def class_counts(labels: np.ndarray) -> dict[str, int]:
    """Class → how many of `labels` ((N,) int) are of it."""
    counts = np.bincount(labels, minlength=len(LABELS)).tolist()
    return dict(zip(LABELS, counts, strict=True))
