"""Which of a command's paths is the bundle, and which are images: no image becomes the model unsaid."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from runtime.backends import SUFFIXES
from runtime.errors import BundleError, InputError
from runtime.folders import Images, images_of
from runtime.hints import command, nearest_path
from runtime.manifest import FILE as MANIFEST
from runtime.predictor import DEFAULT_BUNDLE

STDIN = Path("-")

_MODEL_SUFFIXES = {*SUFFIXES, ".pt", ".pth", ".bin", ".plan", ".pte"}
"""Of files that are a model or a part of one, and no image."""


def bundle_and_images(paths: Sequence[Path], named: Path | None) -> tuple[Path, Images]:
    """The bundle or lone artifact to load, and the images that the other paths stand for.

    named: what --bundle says; all paths are images then. Else the first path is the bundle where it is one, and
    otherwise `DEFAULT_BUNDLE` is.

    Raises InputError where that is in doubt: a first path that does not exist, that is a bundle without its manifest or
    another kind of model, or a lone artifact where the default bundle is there too.
    """
    default, rest = Path(DEFAULT_BUNDLE), list(paths)
    if named is not None:
        bundle = named
    elif rest and is_bundle(rest[0]):
        bundle = rest.pop(0)
    elif rest and rest[0].suffix in SUFFIXES and rest[0].is_file():
        if len(rest) > 1 and is_bundle(default):
            raise InputError(
                f"{rest[0]} is a model, and {default} is here too. Say which of them shall answer: "
                f"--bundle {shlex.quote(str(rest[0]))} or --bundle {default}"
            )
        bundle = rest.pop(0)
    else:
        bundle = default
        if rest:
            _check_first(rest[0], default)
    for path in rest:
        if is_bundle(path):
            raise InputError(
                f"{path} is a bundle, and stands where images do. Name the bundle before them, or by --bundle "
                f"{shlex.quote(str(path))}."
            )
    found = images_of(rest)
    if named is None and bundle == default and rest and rest[0].is_dir() and rest[0] in found.images:
        raise InputError(f"{rest[0]} is a folder that holds no image and is no bundle: it has no {MANIFEST}.")
    return bundle, found


def is_bundle(path: Path) -> bool:
    """Whether a folder has a manifest that is ours, or that nobody can tell to be another program's."""
    try:
        data = json.loads((path / MANIFEST).read_bytes())
    except OSError:
        return False
    except (ValueError, RecursionError):
        return True  # damaged: loading it says so
    return not isinstance(data, dict) or bool({"schema", "artifacts"} & set(data)) or _looks_exported(path)


def _check_first(first: Path, default: Path) -> None:
    """Raise InputError where the first path cannot be an image, so that it was meant to be the bundle."""
    if first == STDIN:
        return
    if not first.exists() and not first.is_symlink():
        lacking = f"{first} does not exist: it is no image and no bundle.{nearest_path(first)}"
        if not default.exists():
            raise BundleError(
                f"{default} does not exist, and {lacking} Make a bundle with: {command('export', '--out', default)}"
            )
        raise InputError(lacking)
    if first.is_dir():
        if _looks_exported(first):
            raise InputError(
                f"{first} holds a model and no {MANIFEST}: it is no whole bundle, and no folder of images. Export it "
                f"again; or name its file: --bundle {shlex.quote(str(_models(first)[0]))}"
            )
    elif first.name == MANIFEST or first.suffix.lower() in _MODEL_SUFFIXES:
        raise InputError(
            f"{first} is no image. Name a bundle by its folder; make one of a checkpoint with: "
            f"{command('export', first) if first.name != MANIFEST else command('export')}"
        )


def _looks_exported(folder: Path) -> bool:
    return bool(_models(folder))


def _models(folder: Path) -> list[Path]:
    """Files that are named as `python -m export` and `python -m train` name a model."""
    try:
        files = sorted(folder.glob("model.*"))
    except OSError:
        return []
    return [file for file in files if file.suffix in _MODEL_SUFFIXES]
