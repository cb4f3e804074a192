"""Validation of arguments, at the time of the call instead of at the first image."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import numpy as np
from PIL import Image

from stageproof.runtime.backends import DEVICES
from stageproof.runtime.errors import BundleError, InputError
from stageproof.runtime.images.folders import images_in
from stageproof.runtime.images.reader import Picture, Source
from stageproof.runtime.inference.engine_settings import MODES
from stageproof.runtime.text.hints import command

if TYPE_CHECKING:
    from stageproof.runtime.audit.log import AuditLog


def at_least_one(**numbers: int | None) -> None:
    """Raise InputError naming the first of `numbers` that is below 1; None is allowed."""
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, expected at least 1.")


def check_options(
    device: str, threads: int | None, optimize_for: str, abstain_below: float | None, max_pixels: int
) -> None:
    """Raise InputError for invalid options of `Predictor`."""
    at_least_one(max_pixels=max_pixels)
    if optimize_for not in MODES:
        raise InputError(f"optimize_for is {optimize_for!r}, expected {' or '.join(map(repr, MODES))}.")
    if device not in DEVICES:
        raise InputError(f"device is {device!r}, expected one of {', '.join(map(repr, DEVICES))}.")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}, expected at least 1, or None for all available CPUs.")
    if abstain_below is not None and not 0 <= abstain_below < 1:
        raise InputError(f"abstain_below is {abstain_below}, expected 0 or more and below 1.")


def check_bundle_path(path: str | os.PathLike[str], **written: bool | str | os.PathLike[str] | None) -> Path:
    """Path of the bundle or lone artifact. Raises BundleError if missing; InputError as `check_outside_bundle`."""
    where = Path(path)
    if not where.exists():
        raise BundleError(f"{where} does not exist. Make a bundle with: {command('export', '--out', where)}")
    check_outside_bundle(where, **written)
    return where


def check_outside_bundle(bundle: Path, **written: bool | str | os.PathLike[str] | None) -> None:
    """Raise InputError naming the first of the output paths `written` that is inside the bundle."""
    for name, path in written.items():
        if path is None or isinstance(path, bool) or not bundle.is_dir():
            continue
        if Path(path).absolute().is_relative_to(bundle.absolute()):
            raise InputError(
                f"{name} is {os.fspath(path)}, inside the bundle {bundle}; an additional file there makes the bundle "
                "invalid. Give a path elsewhere."
            )


def open_audit_log(log: str | os.PathLike[str] | None, key: str | os.PathLike[str] | None) -> AuditLog | None:
    """The audit log at `log`, opened with `key`; None if `log` is None. Raises AuditError."""
    from stageproof.runtime.audit.log import (
        AuditLog,  # imported here: `python -m runtime.audit` warns if runtime.audit is already imported
    )

    return None if log is None else AuditLog(Path(log), Path(key) if key else None)


def check_pixels(images: np.ndarray, shape: tuple[int, int, int]) -> None:
    """Raise InputError unless `images` is float32 (N, *shape) with N at least 1. shape: (C, H, W)."""
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != shape or not len(images):
        raise InputError(
            f"images is {images.dtype} of shape {images.shape}; this bundle expects float32 (N, "
            f"{', '.join(map(str, shape))}) with N at least 1, as runtime.preprocess returns it."
        )


def several(images: Any) -> Iterable[Source]:
    """`images`, an ordered iterable of images. Raises InputError for a single image and for other types.

    Nothing is consumed from a generator. Rejected are types whose iteration does not give images in order: strings,
    files, buffers, mappings, sets.
    """
    if isinstance(images, (str, bytes, bytearray, os.PathLike, Picture, Image.Image)):
        if _is_folder(images):
            raise InputError(
                f"images is the folder {os.fspath(images)!r}, expected several images. Pass "
                "runtime.images.folders.images_in(folder).images, or the folder to predict_study()."
            )
        raise _one(type(images).__name__)
    if hasattr(images, "read"):
        raise _one("file object")
    if isinstance(images, np.ndarray):
        return _rows(images)
    if isinstance(images, Mapping):
        raise InputError("images is a mapping, expected several images. Pass its values: list(images.values()).")
    if isinstance(images, (set, frozenset)):
        raise InputError(
            "images is a set, which has no order; results are returned in the order of the images. Pass "
            "sorted(images), or a list."
        )
    if hasattr(images, "__dlpack__"):
        raise InputError(
            f"images is a {type(images).__module__}.{type(images).__qualname__}, expected several images. Pass uint8 "
            "numpy arrays, (H, W) or (H, W, 3) each."
        )
    if _is_buffer(images):
        raise _one(type(images).__name__)
    if isinstance(images, type) or not (hasattr(images, "__iter__") or hasattr(images, "__getitem__")):
        raise InputError(f"images is {type(images).__name__}, expected several images: a list or another iterable.")
    return cast("Iterable[Source]", images)


def check_slices(images: Any) -> Iterable[Source]:
    """As `several`; also accepts a single image or file, and a folder, which is searched for images."""
    if _is_folder(images):
        return _inside(Path(os.fsdecode(images)))
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Picture, Image.Image)):
        return [images]
    if hasattr(images, "read") or (isinstance(images, np.ndarray) and _is_one_image(images)):
        return [images]
    return several(images)


def _is_folder(images: Any) -> TypeGuard[str | os.PathLike[str]]:
    # os.path returns False for invalid file names; pathlib raises.
    return isinstance(images, (str, os.PathLike)) and os.path.isdir(images)  # noqa: PTH112


def _inside(folder: Path) -> Iterable[Source]:
    found = images_in(folder)
    if not found.images:
        raise InputError(f"{str(folder)!r} is a folder without an image ({found.skipped_words() or 'it is empty'}).")
    return [*found.images]


def _one(kind: str) -> InputError:
    return InputError(f"images is one {kind}, expected several. Use predict() for one image, or pass [images].")


def _rows(images: np.ndarray) -> Iterable[Source]:
    """Validated array of several images, or of their paths."""
    got = f"images is an array of {images.dtype} {images.shape}"
    if _is_one_image(images):
        raise InputError(f"{got}: one image, expected several. Use predict() for one image, or pass [images].")
    if images.ndim == 3 and images.shape[0] == 3:
        raise InputError(
            f"{got}: one colour image with its channels first, or three grey ones. Use "
            "predict(numpy.moveaxis(images, 0, -1)) for one, or pass list(images) for three."
        )
    if images.ndim not in (1, 3, 4) or (images.ndim == 1 and images.dtype.kind not in "OU"):
        raise InputError(f"{got}, expected several images: (N, H, W) or (N, H, W, 3), or a list of arrays.")
    return images


def _is_one_image(images: np.ndarray) -> bool:
    return images.ndim == 2 or (images.ndim == 3 and images.shape[2] in (1, 3) and images.shape[0] not in (1, 3))


def _is_buffer(images: Any) -> bool:
    try:
        memoryview(images).release()
    except TypeError:
        return False
    return True
