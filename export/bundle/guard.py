"""Fits the bundle's guard, which detects out-of-distribution images, to the model's training slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stageproof.export.data.run_data import training_samples
from stageproof.export.data.sampling import decoded
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
    """(guard, ""), written into `folder`; or (None, the reason why there is none).

    moved: data named by the user, possibly the run's own data at a new path.
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
    """(N,) bool: the samples that the guard in `folder` rejects, as `Predictor` would; None without a guard."""
    if not (folder / FILE).is_file():
        return None
    guard = Guard.read(folder / FILE)
    return np.array([guard.judge(guard.scores(image)) is not None for image in decoded(samples)], bool)
