"""Synthetic axial brain slices whose ventricles and sulci widen with the stage: the data that ships with us.

    python -m train.data.phantom --out phantoms/         # class folders of PNG files to try things on

Nobody was scanned for these: every person is invented by `train.data.anatomy` from a seed. They let training,
export and prediction run and be tested anywhere. Accuracy on them says nothing about patients.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from runtime.command import exit_status
from runtime.errors import DatasetError, InputError
from runtime.labels import LABELS
from runtime.work_folders import make_readable, unmark, work_folder
from train.data.anatomy import brain, invent
from train.data.samples import Samples

__all__ = ["draw_slice", "main", "phantom_samples"]

_LOWEST, _HIGHEST = 0.08, 0.92  # axial levels between which a person's slices are spread evenly


def draw_slice(stage: int, patient: int, level: float, *, size: int = 128, seed: int = 0) -> np.ndarray:
    """One skull-stripped axial slice, (size, size) uint8, front of the head upwards, 0 outside the brain.

    stage: 0-3, position in `runtime.labels.LABELS`; the same `patient` at another stage is the same person, declined.
    patient: 0 or more; a person within the population `seed`. Another seed holds other people.
    level: 0 (midbrain, hippocampi) to 1 (above the lateral ventricles).
    size: pixels a side, 32 or more.

    The same arguments give the same pixels in every process; NumPy may change its random streams between versions.
    Raises InputError for an argument outside these ranges.
    """
    _check(stage=stage, patient=patient, level=level, size=size, seed=seed)
    person = invent(seed, patient)
    signal, inside = brain(person, stage, level, size)
    rng = np.random.default_rng([0x5CA9, seed, patient, stage, round(level * 1e6)])

    across = np.linspace(-1.0, 1.0, size)
    x, y = across[None, :], across[:, None]
    slope_x, slope_y, outward = person.bias + rng.normal(0.0, 0.01, 3)
    gain, gamma = person.contrast
    signal = signal**gamma * gain * (1.0 + slope_x * x + slope_y * y + outward * (x * x + y * y - 0.35))
    # A magnitude image has noise in two channels, so its noise is Rician (Gudbjartsson & Patz 1995).
    real, imaginary = rng.normal(0.0, person.noise, (2, size, size))
    signal = np.hypot(signal + real, imaginary) * inside
    return np.clip(np.rint(signal * 255.0), 0, 255).astype(np.uint8)


def phantom_samples(patients: int = 24, slices: int = 6, *, size: int = 128, seed: int = 0, first: int = 0) -> Samples:
    """`Samples` of 4 x patients x slices PNG images, stage by stage, with every slice's patient in `groups`.

    patients: people in each stage, 1 or more; asking for more adds people and leaves the others as they are.
    first: people to leave out at the beginning of each stage: 24 gives others than the 24 of the default.
    slices: axial levels of each person, 1 or more, spread evenly from the hippocampi to above the ventricles.
    size, seed: as for `draw_slice`. Raises InputError for an argument outside these ranges.
    """
    images, labels, names, groups = [], [], [], []
    for stage, patient, number, pixels in _scans(patients, slices, size, seed, first):
        images.append(_encode(pixels, "png"))
        labels.append(stage)
        names.append(f"phantom-{seed}/{LABELS[stage]}/p{patient:03d}_s{number}.png")
        groups.append(patient)
    beyond = f", first={first}" if first else ""
    return Samples(
        images=images,
        labels=np.array(labels, dtype=np.int64),
        names=names,
        groups=np.array(groups, dtype=np.int64),
        source=f"phantom(patients={patients}, slices={slices}, size={size}, seed={seed}{beyond})",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command line: 0, or 2 for a request that cannot be met, with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m train.data.phantom",
        description="Write synthetic brain slices as DIR/CLASS/pNNN_sM.png, to try every command on.",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="DIR", help="new or empty directory for the class folders")
    target.add_argument("--montage", type=Path, metavar="FILE", help="write one overview picture instead")
    parser.add_argument("--patients", type=int, default=6, help="people in each stage (default: %(default)s)")
    parser.add_argument(
        "--slices",
        type=int,
        default=32,
        help="slices of each person (default: %(default)s; below about 24, neighbouring slices are too unlike for "
        "train.data.patients to tell from the pixels who is the same person)",
    )
    parser.add_argument("--size", type=int, default=128, help="pixels a side (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="which population (default: %(default)s: people who are not in the default training data, seed 0)",
    )
    parser.add_argument("--format", choices=("png", "jpeg"), default="png", help="(default: %(default)s)")
    options = parser.parse_args(argv)
    try:
        if options.montage:
            _montage(options.size, options.seed).save(options.montage, optimize=True)
        else:
            _write_folders(options)
    except (InputError, DatasetError, OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


def _scans(
    patients: int, slices: int, size: int, seed: int, first: int = 0
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Stage, patient, slice number and pixels of every slice of a population."""
    for name, value in (("patients", patients), ("slices", slices)):
        if value < 1:
            raise InputError(f"{name} is {value}; a phantom population needs 1 or more.")
    levels = np.linspace(_LOWEST, _HIGHEST, slices) if slices > 1 else [0.5]
    for stage in range(len(LABELS)):
        for index in range(first, first + patients):
            patient = index * len(LABELS) + stage  # unique over all stages, and unmoved when more are asked for
            for number, level in enumerate(levels):
                yield stage, patient, number, draw_slice(stage, patient, float(level), size=size, seed=seed)


def _check(*, stage: int, patient: int, level: float, size: int, seed: int) -> None:
    if not 0 <= stage < len(LABELS):
        raise InputError(f"stage is {stage}; expected 0-{len(LABELS) - 1}, a position in {', '.join(LABELS)}.")
    if not 0.0 <= level <= 1.0:
        raise InputError(f"level is {level}; expected 0 (hippocampi) to 1 (above the ventricles).")
    if size < 32:
        raise InputError(f"size is {size}; a phantom slice needs 32 pixels a side or more.")
    for name, value in (("patient", patient), ("seed", seed)):
        if value < 0:
            raise InputError(f"{name} is {value}; expected 0 or more.")


def _encode(pixels: np.ndarray, kind: str) -> bytes:
    """One slice as the bytes of a PNG (compressed lightly: noise does not shrink) or a quality-95 JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"compress_level": 3} if kind == "png" else {"quality": 95}))
    return buffer.getvalue()


def _write_folders(options: argparse.Namespace) -> None:
    """Write the class folders beside their place and move them there, so that DIR is never half full."""
    out: Path = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out} exists and is not an empty directory; name another with --out, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(out.parent, f".{out.name}-") as staging:
        for stage, patient, number, pixels in _scans(options.patients, options.slices, options.size, options.seed):
            path = staging / LABELS[stage] / f"p{patient:03d}_s{number}.{options.format}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(_encode(pixels, options.format))
        unmark(staging)
        make_readable(staging)  # nobody's
        if out.exists():
            out.rmdir()  # Windows does not replace a directory, even an empty one
        os.replace(staging, out)  # noqa: PTH105


def _montage(size: int, seed: int, columns: int = 6) -> Image.Image:
    """One row a stage, one column a person and a level, from low to high."""
    margin = 112
    picture = Image.new("L", (margin + columns * size, len(LABELS) * size))
    pen = ImageDraw.Draw(picture)
    for stage, label in enumerate(LABELS):
        pen.text((4, stage * size + size // 2 - 6), label, fill=220)
        for column, level in enumerate(np.linspace(_LOWEST, _HIGHEST, columns)):
            pixels = draw_slice(stage, column * len(LABELS) + stage, float(level), size=size, seed=seed)
            picture.paste(Image.fromarray(pixels), (margin + column * size, stage * size))
    return picture.point(lambda value: value & 0xF8)  # 32 greys: noise in the other bits is most of a PNG's size


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="train"))
