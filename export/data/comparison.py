"""Selects the comparison images of an export: images that the model was neither trained nor calibrated on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.export.data.labelled import classes_of_run, labelled_samples
from stageproof.export.data.run_data import run_data, side, unseen_phantoms, with_patients
from stageproof.export.data.sampling import PATIENTS, Drawn, decoded, joined, with_people
from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import FOUR_STAGES, LabelSet
from stageproof.runtime.preprocess import InputSpec, preprocess
from stageproof.train.data.phantom.__main__ import phantom_samples
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import has_no_labels
from stageproof.train.runs.pseudonyms import public_source

SEED = 7919
"""Seed of phantoms that are in no training set: python -m train numbers its seeds from 0."""

HELD_OUT, GIVEN, PHANTOMS = "held-out", "given", "phantoms"


@dataclass(frozen=True)
class Comparison:
    """The comparison images of an export."""

    samples: Samples
    """`groups` are the patients, None if unknown. Sampled from as many patients as possible, few slices of each."""
    unit: str
    """``patients``, ``groups`` of one or more patients each, or ``unknown``."""
    labelled: bool
    """Whether the labels are known."""
    kind: str
    """``held-out``: slices of the run's own data that it was not trained on, or phantoms of its own population;
    ``given``: the user's; ``phantoms``: synthetic, since the run's data is missing or a checkpoint names none."""
    digest: str
    """SHA-256 of the complete data set that the images were sampled from (`Samples.digest`)."""
    warning: str = ""
    """Warning for the user, such as that the run's data is missing; "" for none."""

    def facts(self) -> dict[str, Any]:
        """Kind, source, digest, patients and warning, JSON-ready, for parity.json and the manifest's provenance."""
        people = None if self.samples.groups is None else len(np.unique(self.samples.groups))
        facts: dict[str, Any] = {
            "kind": self.kind,
            "source": public_source(self.samples.source),
            "digest": self.digest,
        }
        facts |= {"people": people, "unit": self.unit}
        return {**facts, "warning": self.warning} if self.warning else facts


def comparison(
    run: Path | None,
    limit: int,
    given: Path | None = None,
    *,
    classes: LabelSet | None = None,
    by_similarity: bool = True,
) -> Comparison:
    """At most `limit` comparison slices, of as many patients as possible.

    given: the user's images; if they are the run's own data at a new path, only the held-out ones are used. None:
        slices the run was not trained on, or phantoms, with a warning, if its data is missing.
    classes: the model's label set, in which the labels are; None: that of the run, else of the data.
    by_similarity: identify the patients of given images without ids by image similarity.

    Raises DatasetError for unusable images and for images of classes that the model does not have, CheckpointError for
    a damaged run.
    """
    classes = classes_of_run(run) if classes is None and run else classes
    data = run_data(run, given) if run else None
    if run and data and data.samples is not None and (given is None or data.moved):
        drawn = _held_out(run, data.samples, limit, data.phantoms)
        return Comparison(drawn.samples, drawn.unit, True, HELD_OUT, data.digest)
    gone = f"WARNING: {data.problem}" if data and data.problem else ""
    if given is not None:
        samples, labelled = given_samples(given, classes)
        warning = f"{gone}; artifacts are compared on {given} instead" if gone else ""
        drawn = with_people(samples, by_similarity=by_similarity).draw(limit)
        return Comparison(drawn.samples, drawn.unit, labelled, GIVEN, samples.digest(), warning)
    samples = phantoms(limit, classes or FOUR_STAGES)
    if gone:
        warning = (
            f"{gone}; artifacts are compared on synthetic phantoms instead. Give the new path of the data: --data PATH"
        )
    else:
        warning = (
            "a checkpoint names no data; artifacts are compared on synthetic phantoms. Give real slices: --data PATH"
        )
    return Comparison(samples, PATIENTS, True, PHANTOMS, samples.digest(), warning)


def given_samples(path: Path, classes: LabelSet | None = None) -> tuple[Samples, bool]:
    """All images at `path`, and whether their labels are known. classes: as for `export.data.labelled`.

    Raises DatasetError if there are none, and what `labelled_samples` raises.
    """
    if path.is_dir() and has_no_labels(path):
        return _unlabelled(path, classes or FOUR_STAGES), False
    return labelled_samples(path, classes), True


def phantoms(limit: int, classes: LabelSet = FOUR_STAGES) -> Samples:
    """At most `limit` phantom slices of these classes, four per phantom patient, the same at every call."""
    people = max(1, -(-limit // (4 * len(classes))))
    samples = phantom_samples(patients=people, slices=4, seed=SEED, classes=classes)
    return Drawn(samples, PATIENTS).draw(limit).samples


def preprocessed(samples: Samples, spec: InputSpec) -> np.ndarray:
    """(N, C, H, W) float32, read and preprocessed by the same code as in Predictor. Raises DatasetError."""
    return np.stack([preprocess(image, spec) for image in decoded(samples, " for the comparison")])


def distinct(images: np.ndarray) -> np.ndarray:
    """Ascending positions of the images without duplicates (the first of each). images: (N, …)."""
    first: dict[bytes, int] = {}
    for index, image in enumerate(images):
        first.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
    return np.array(sorted(first.values()), np.int64)


def _held_out(run: Path, samples: Samples, limit: int, phantom: bool) -> Drawn:
    """Slices that the run was not trained on; of a run on phantoms `limit` slices, with additional phantom patients."""
    held = with_patients(run, side(run, samples, "validation"))
    if not phantom or len(held.samples) >= limit:
        return held.draw(limit)
    room = limit - len(held.samples)
    more = Drawn(unseen_phantoms(run, room), PATIENTS).draw(room)
    source = f"{held.samples.source}, with {len(more.samples)} of additional phantom patients"
    return joined(held, more, source)


def _unlabelled(folder: Path, classes: LabelSet) -> Samples:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise DatasetError(f"{folder} contains no images. Give images, class folders, or a parquet file.")
    names = [path.name for path in files]
    return Samples(files, np.zeros(len(files), np.int64), names, None, str(folder), classes=classes)
