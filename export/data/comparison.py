"""The images that the artifacts of one export are compared on: never those that it was trained or calibrated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.export.data.run_data import run_data, side, unseen_phantoms, with_patients
from stageproof.export.data.sampling import PATIENTS, Drawn, joined, with_people
from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import DatasetError, ImageError
from stageproof.runtime.preprocess import InputSpec, preprocess
from stageproof.train.data.phantom.__main__ import phantom_samples
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.runs.pseudonyms import public_source

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


def _held_out(run: Path, samples: Samples, limit: int, phantom: bool) -> Drawn:
    """Slices that the run was not trained on; where they are phantoms, as many as `limit`, of more people."""
    held = with_patients(run, side(run, samples, "validation"))
    if not phantom or len(held.samples) >= limit:
        return held.draw(limit)
    room = limit - len(held.samples)
    more = Drawn(unseen_phantoms(run, room), PATIENTS).draw(room)
    source = f"{held.samples.source}, with {len(more.samples)} of people who are not in it"
    return joined(held, more, source)


def _unlabelled(folder: Path) -> Samples:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DatasetError(f"{folder} holds no image. Give images, class folders, or a parquet file.")
    return Samples(files, np.zeros(len(files), np.int64), [path.name for path in files], None, str(folder))
