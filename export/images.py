"""The images of one export: what artifacts are compared on, and what int8 is calibrated on. Never the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from export.apart import two_halves, without
from export.draw import PATIENTS, UNKNOWN, Drawn, joined, over_people, spread, with_people
from export.run_data import patients, run_data, side, unit_of, unseen_phantoms
from runtime.decoders import read_isolated
from runtime.errors import DatasetError, ImageError
from runtime.preprocess import InputSpec, preprocess
from train.data.phantom import phantom_samples
from train.data.samples import Samples
from train.data.sources import load_samples
from train.pseudonyms import public_source

CALIBRATION = 256
"""Images to calibrate on, where there are as many."""
LEAST_CALIBRATION = 100
SELECTION = 256
"""Images to choose float layers on, where there are as many."""
SEED = 7919
"""Phantoms of this seed are nobody's training data: python -m train counts its seeds from 0."""

HELD_OUT, GIVEN, PHANTOMS = "held-out", "given", "phantoms"


@dataclass(frozen=True)
class Comparison:
    """The images to compare artifacts with their reference on."""

    samples: Samples
    """`groups` are the people, None where nobody knows: as many of them as there are, and few slices of each."""
    unit: str
    """``patients``, ``groups`` of one or more people each, or ``unknown``."""
    labelled: bool
    """Whether the labels are known."""
    kind: str
    """``held-out``: slices of the run's own data that it was not trained on, or phantoms of its own population;
    ``given``: the user's; ``phantoms``: synthetic, since the run's data is gone or a checkpoint names none."""
    digest: str
    """SHA-256 of all the data that the images were taken from (`Samples.digest`)."""
    warning: str = ""
    """What the user must know of the choice, such as that the run's data is gone."""

    def facts(self) -> dict[str, Any]:
        """JSON-ready, for parity.json and the manifest's provenance."""
        people = None if self.samples.groups is None else len(np.unique(self.samples.groups))
        facts: dict[str, Any] = {
            "kind": self.kind,
            "source": public_source(self.samples.source),
            "digest": self.digest,
        }
        facts |= {"people": people, "unit": self.unit}
        return {**facts, "warning": self.warning} if self.warning else facts


def comparison(run: Path | None, limit: int, given: Path | None = None, *, look: bool = True) -> Comparison:
    """At most `limit` slices to compare on, of as many people as there are.

    given: the user's own images; where they are the run's own data in another place, those of them that were held out.
    Without it: slices the run did not train on, or phantoms, with a warning, where its data is not there any more.
    look: whether people of given images without ids are looked for by image similarity.

    Raises DatasetError for images that cannot be used, CheckpointError for a damaged run.
    """
    data = run_data(run, given) if run else None
    if run and data and data.samples is not None and (given is None or data.moved):
        drawn = _held_out(run, data.samples, limit, data.phantoms)
        return Comparison(drawn.samples, drawn.unit, True, HELD_OUT, data.digest)
    gone = f"WARNING: {data.problem}" if data and data.problem else ""
    if given is not None:
        samples, labelled = given_samples(given)
        warning = f"{gone}, so artifacts are compared on {given}" if gone else ""
        drawn = with_people(samples, look=look).draw(limit)
        return Comparison(drawn.samples, drawn.unit, labelled, GIVEN, samples.digest(), warning)
    samples = phantoms(limit)
    if gone:
        warning = (
            f"{gone}, so artifacts are compared on phantoms, which are synthetic. Say where it is now: --data PATH"
        )
    else:
        warning = "a checkpoint names no data: compared on phantoms, which are synthetic. Give real slices: --data PATH"
    return Comparison(samples, PATIENTS, True, PHANTOMS, samples.digest(), warning)


def given_samples(path: Path) -> tuple[Samples, bool]:
    """All images at `path`, and whether their labels are known. Raises DatasetError where there are none."""
    if path.is_dir() and not any(entry.is_dir() for entry in path.iterdir()):
        return _unlabelled(path), False
    return load_samples(path), True


def phantoms(limit: int) -> Samples:
    """At most `limit` phantom slices, four of each person, the same ones each time."""
    samples = phantom_samples(patients=max(1, -(-limit // 16)), slices=4, seed=SEED)
    return Drawn(samples, PATIENTS).draw(limit).samples


def preprocessed(samples: Samples, spec: InputSpec) -> np.ndarray:
    """(N, C, H, W) float32, through the same reading and preprocessing that Predictor uses."""
    images = []
    for index, name in enumerate(samples.names):
        try:
            images.append(preprocess(read_isolated(samples.read(index)).image, spec))
        except (ImageError, OSError) as error:
            raise DatasetError(f"{name} of {samples.source} cannot be compared on: {error}") from error
    return np.stack(images)


def distinct(images: np.ndarray) -> np.ndarray:
    """Positions of the first of each set of equal images, ascending. images: (N, …)."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(images):
        first.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
    return np.array(sorted(first.values()), np.int64)


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
    compared: `export.apart.pixel_digests` of the images that artifacts are compared on. Those are left out, and `say`
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


def training_samples(run: Path, limit: int, moved: Path | None = None) -> tuple[Samples | None, str]:
    """At most `limit` of the run's training slices with their patients as groups; or None, and why there are none."""
    data = run_data(run, moved)
    if data.samples is None:
        return None, data.problem
    samples = side(run, data.samples, "training")
    samples = samples.select(spread(len(samples), limit))
    of = patients(run)
    _, groups = np.unique([of[name] for name in samples.names], return_inverse=True)
    return replace(samples, groups=groups.astype(np.int64)), ""


def _held_out(run: Path, samples: Samples, limit: int, phantom: bool) -> Drawn:
    """Slices that the run was not trained on; where they are phantoms, as many as `limit`, of more people."""
    held = with_patients(run, side(run, samples, "validation"))
    if not phantom or len(held.samples) >= limit:
        return held.draw(limit)
    room = limit - len(held.samples)
    more = Drawn(unseen_phantoms(run, room), PATIENTS).draw(room)
    source = f"{held.samples.source}, with {len(more.samples)} of people who are not in it"
    return joined(held, more, source)


def with_patients(run: Path, samples: Samples) -> Drawn:
    """Slices of the run with their people as its split.csv has them."""
    unit = unit_of(run)
    if unit == UNKNOWN:
        return Drawn(replace(samples, groups=None), unit)
    of = patients(run)
    _, groups = np.unique([of[name] for name in samples.names], return_inverse=True)
    return Drawn(replace(samples, groups=groups.astype(np.int64)), unit)


def _unlabelled(folder: Path) -> Samples:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DatasetError(f"{folder} holds no image. Give images, class folders, or a parquet file.")
    return Samples(files, np.zeros(len(files), np.int64), [path.name for path in files], None, str(folder))


def _stratified(labels: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` positions: as many of each class as there are, up to an equal share, then filled up evenly."""
    share = max(1, limit // len(np.unique(labels)))
    chosen = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    equal = np.concatenate([where[spread(len(where), share)] for where in chosen])
    rest = np.setdiff1d(np.arange(len(labels)), equal)
    room = limit - len(equal)
    more = rest[spread(len(rest), room)] if room > 0 and len(rest) else rest[:0]
    return np.sort(np.concatenate([equal, more]))
