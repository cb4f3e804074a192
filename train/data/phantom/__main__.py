"""`python -m train.data.phantom`: writes synthetic axial brain slices, whose ventricles and sulci widen with the stage.

    python -m train.data.phantom --out phantoms/                 # class folders of PNG files
    python -m train.data.phantom --out heads/ --volumes 8        # whole heads, as BIDS (extras train, volume)

They show no real patient: `train.data.phantom.anatomy` generates each person from a seed. Training, export and
prediction can be tried and tested with them anywhere. Accuracy on them says nothing about real patients.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from stageproof.runtime.cli.exit_status import exit_status
from stageproof.runtime.errors import DatasetError, DependencyError, InputError
from stageproof.runtime.labels import BUILT_IN, LabelSet, named_or_listed
from stageproof.runtime.system.work_folders import make_readable, unmark, work_folder
from stageproof.runtime.text.hints import program
from stageproof.train.data.phantom.slices import HIGHEST, LOWEST, draw_slice, encode, phantom_samples, scans, stage_of

__all__ = ["draw_slice", "main", "phantom_samples"]


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 written; 2 invalid input, with one line on stderr."""
    parser = argparse.ArgumentParser(
        prog=program("train.data.phantom"),
        description="Write synthetic brain slices as DIR/CLASS/pNNN_sM.png, or whole heads as DIR/sub-NNN.",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="DIR", help="new or empty directory for the class folders")
    target.add_argument("--montage", type=Path, metavar="FILE", help="write one overview image instead")
    parser.add_argument("--patients", type=int, default=6, help="patients in each class (default: %(default)s)")
    parser.add_argument(
        "--slices",
        type=int,
        default=32,
        help="slices of each patient (default: %(default)s; with fewer than about 24, neighbouring slices are too "
        "dissimilar to identify patients from image similarity)",
    )
    parser.add_argument(
        "--volumes", type=int, metavar="N", help="write N whole heads instead of slices, one class after another"
    )
    parser.add_argument(
        "--layout",
        choices=("bids", "dicom"),
        default="bids",
        help="with --volumes: a BIDS dataset of NIfTI files, or a folder of DICOM files each (default: %(default)s)",
    )
    parser.add_argument(
        "--spacing", type=float, default=1.0, help="with --volumes: mm between voxels (default: %(default)s)"
    )
    parser.add_argument("--size", type=int, default=128, help="height and width, pixels (default: %(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=1,
        help="random seed of the patients (default: %(default)s; these are not in the default training data, whose "
        "seed is 0)",
    )
    parser.add_argument(
        "--classes",
        default="four-stages",
        help="classes in clinical order, separated by commas, or a built-in set: "
        f"{', '.join(BUILT_IN)} (default: %(default)s)",
    )
    parser.add_argument("--format", choices=("png", "jpeg"), default="png", help="file format (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.montage and options.volumes is not None:
        parser.error("--montage shows slices: give it without --volumes")
    try:
        classes = named_or_listed(options.classes)
        if options.montage:
            _montage(options.size, options.seed, classes).save(options.montage, optimize=True)
        else:
            _write_folders(options, classes)
    except (InputError, DatasetError, DependencyError, OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0


def _write_folders(options: argparse.Namespace, classes: LabelSet) -> None:
    """Write the class folders, or whole heads, to a temporary folder and rename it, so that DIR is never incomplete."""
    out: Path = options.out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out} exists and is not an empty directory. Give another --out, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with work_folder(out.parent, f".{out.name}-") as staging:
        if options.volumes is not None:
            # Imported here: needs scipy, pydicom and nibabel, which slices do not.
            from stageproof.train.data.phantom.volumes import write_volumes

            write_volumes(staging, options.volumes, classes, options.seed, options.layout, options.spacing)
        else:
            _write_slices(options, staging, classes)
        unmark(staging)
        make_readable(staging)  # no patient data
        if out.exists():
            out.rmdir()  # Windows does not replace a directory, even an empty one
        os.replace(staging, out)  # noqa: PTH105


def _write_slices(options: argparse.Namespace, folder: Path, classes: LabelSet) -> None:
    every = scans(options.patients, options.slices, options.size, options.seed, classes=len(classes))
    for label, patient, number, pixels in every:
        path = folder / classes.names[label] / f"p{patient:03d}_s{number}.{options.format}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(pixels, options.format))


def _montage(size: int, seed: int, classes: LabelSet, columns: int = 6) -> Image.Image:
    """One row for each class; the columns are different patients at axial levels from low to high."""
    margin = 112
    picture = Image.new("L", (margin + columns * size, len(classes) * size))
    pen = ImageDraw.Draw(picture)
    for row, name in enumerate(classes.names):
        pen.text((4, row * size + size // 2 - 6), name, fill=220)
        for column, level in enumerate(np.linspace(LOWEST, HIGHEST, columns)):
            stage, patient = stage_of(row, len(classes)), column * len(classes) + row
            pixels = draw_slice(stage, patient, float(level), size=size, seed=seed)
            picture.paste(Image.fromarray(pixels), (margin + column * size, row * size))
    return picture.point(lambda value: value & 0xF8)  # 32 grey levels: noise in the lower bits makes the PNG file large


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="train"))
