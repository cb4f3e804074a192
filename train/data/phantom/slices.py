"""Synthetic axial brain slices: `draw_slice` draws one, `phantom_samples` makes a data set of a population.

`train.data.phantom.anatomy` generates each person from a seed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import FOUR_STAGES, LabelSet
from stageproof.train.data.phantom.anatomy import brain, invent
from stageproof.train.data.samples import Samples

LOWEST, HIGHEST = 0.08, 0.92
"""Range of axial levels over which the slices of a person are evenly spaced."""


def draw_slice(stage: float, patient: int, level: float, *, size: int = 128, seed: int = 0) -> np.ndarray:
    """(size, size) uint8: one skull-stripped axial slice, front of the head at the top, 0 outside of the brain.

    stage: 0-3, the atrophy; whole numbers are indices in `runtime.labels.LABELS`. The same `patient` at another stage
    is the same person.
    patient: 0 or more; a person of the population `seed`. Another seed has other persons.
    level: 0 (midbrain, hippocampi) to 1 (above the lateral ventricles).
    size: height and width in pixels, 32 or more.

    The same arguments give the same pixels in every process; NumPy may change its random streams between versions.
    Raises InputError for an argument outside these ranges.
    """
    _check(stage=stage, patient=patient, level=level, size=size, seed=seed)
    person = invent(seed, patient)
    signal, inside = brain(person, stage, level, size)
    own = int(stage) if stage == int(stage) else round(stage * 1e6)
    rng = np.random.default_rng([0x5CA9, seed, patient, own, round(level * 1e6)])

    across = np.linspace(-1.0, 1.0, size)
    x, y = across[None, :], across[:, None]
    slope_x, slope_y, outward = person.bias + rng.normal(0.0, 0.01, 3)
    gain, gamma = person.contrast
    signal = signal**gamma * gain * (1.0 + slope_x * x + slope_y * y + outward * (x * x + y * y - 0.35))
    # A magnitude image has noise in two channels; its noise is therefore Rician (Gudbjartsson & Patz 1995).
    real, imaginary = rng.normal(0.0, person.noise, (2, size, size))
    signal = np.hypot(signal + real, imaginary) * inside
    return np.clip(np.rint(signal * 255.0), 0, 255).astype(np.uint8)


def phantom_samples(
    patients: int = 24,
    slices: int = 6,
    *,
    size: int = 128,
    seed: int = 0,
    first: int = 0,
    classes: LabelSet = FOUR_STAGES,
) -> Samples:
    """`Samples` of classes × patients × slices PNG images, ordered by class, with the patient of each in `groups`.

    classes: class k of C has the atrophy of stage 3 k / (C - 1).
    patients: number of patients in each class, 1 or more; a larger number adds patients and does not change the others.
    first: number of patients to skip in each class; 24 gives other patients than the default.
    slices: axial levels of each person, 1 or more, spread evenly from the hippocampi to above the ventricles.
    size, seed: as for `draw_slice`. Raises InputError for an argument outside these ranges.
    """
    images, labels, names, groups = [], [], [], []
    for label, patient, number, pixels in scans(patients, slices, size, seed, first, len(classes)):
        images.append(encode(pixels, "png"))
        labels.append(label)
        names.append(f"phantom-{seed}/{classes.names[label]}/p{patient:03d}_s{number}.png")
        groups.append(patient)
    beyond = f", first={first}" if first else ""
    beyond += "" if classes.names == FOUR_STAGES.names else f", classes={','.join(classes.names)}"
    return Samples(
        images=images,
        labels=np.array(labels, dtype=np.int64),
        names=names,
        groups=np.array(groups, dtype=np.int64),
        source=f"phantom(patients={patients}, slices={slices}, size={size}, seed={seed}{beyond})",
        classes=classes,
    )


def scans(
    patients: int, slices: int, size: int, seed: int, first: int = 0, classes: int = len(FOUR_STAGES)
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Class, patient, slice number and pixels of every slice of a population with this number of classes."""
    for name, value in (("patients", patients), ("slices", slices)):
        if value < 1:
            raise InputError(f"{name} is {value}; a phantom population needs 1 or more.")
    levels = np.linspace(LOWEST, HIGHEST, slices) if slices > 1 else [0.5]
    for label in range(classes):
        stage = stage_of(label, classes)
        for index in range(first, first + patients):
            patient = index * classes + label  # unique over all classes, and independent of the number of patients
            for number, level in enumerate(levels):
                yield label, patient, number, draw_slice(stage, patient, float(level), size=size, seed=seed)


def stage_of(label: int, classes: int) -> float:
    """The stage (0-3) whose atrophy class number `label` of `classes` has; an int where it is whole."""
    stage = (len(FOUR_STAGES) - 1) * label / (classes - 1)
    return int(stage) if stage.is_integer() else stage


def _check(*, stage: float, patient: int, level: float, size: int, seed: int) -> None:
    check_person(stage=stage, patient=patient, seed=seed)
    if not 0.0 <= level <= 1.0:
        raise InputError(f"level is {level}; expected 0 (hippocampi) to 1 (above the ventricles).")
    if size < 32:
        raise InputError(f"size is {size}; a phantom slice needs 32 pixels a side or more.")


def check_person(*, stage: float, patient: int, seed: int) -> None:
    """Raise InputError unless these arguments name a phantom person and an atrophy."""
    names = FOUR_STAGES.names
    if not 0 <= stage <= len(names) - 1:
        raise InputError(f"stage is {stage}; expected 0-{len(names) - 1}, an index in {', '.join(names)}.")
    for name, value in (("patient", patient), ("seed", seed)):
        if value < 0:
            raise InputError(f"{name} is {value}; expected 0 or more.")


def encode(pixels: np.ndarray, kind: str) -> bytes:
    """The slice as a PNG file (low compression level, since noise does not compress) or a JPEG file of quality 95."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"compress_level": 3} if kind == "png" else {"quality": 95}))
    return buffer.getvalue()
