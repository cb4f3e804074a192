"""The bundle's guard: what images the model may speak about, fitted to the slices it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stageproof.export.data.run_data import training_samples
from stageproof.export.reference.model import Reference
from stageproof.runtime.bundle.manifest import Document
from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import InputError
from stageproof.runtime.guard.ood_guard import Guard, fit
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.data.samples import Samples

FILE = "guard.npz"
IMAGES = 2048


def write_guard(reference: Reference, folder: Path, moved: Path | None = None) -> tuple[Document | None, str]:
    """The guard, written into `folder`; or None, and why there is none.

    moved: data that the user names, which may be the run's own in another place.
    """
    if reference.run is None:
        return None, "the bundle has no guard: a checkpoint names no training slices to fit it to"
    samples, problem = training_samples(reference.run, IMAGES, moved)
    if samples is None:
        return None, f"the bundle has no guard: {problem}"
    try:
        guard = fit((read_isolated(samples.read(index)).image for index in range(len(samples))), samples.groups)
    except InputError as error:
        return None, f"the bundle has no guard: {error}"
    guard.write(folder / FILE)
    return Document(FILE, sha256_file(folder / FILE)), ""


def rejections(folder: Path, samples: Samples) -> np.ndarray | None:
    """(N,) bool: which of the samples the guard in `folder` rejects, as `Predictor` does; None without a guard."""
    if not (folder / FILE).is_file():
        return None
    guard = Guard.read(folder / FILE)
    scores = (guard.scores(read_isolated(samples.read(index)).image) for index in range(len(samples)))
    return np.array([guard.judge(one) is not None for one in scores], bool)
