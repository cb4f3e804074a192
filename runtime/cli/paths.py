"""Separates a command's paths into the bundle (only --bundle) and the images (all other paths)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from stageproof.runtime.artifacts.files import read_once
from stageproof.runtime.bundle.manifest import DEFAULT_BUNDLE, LARGEST
from stageproof.runtime.bundle.manifest import FILE as MANIFEST
from stageproof.runtime.errors import BundleError, InputError
from stageproof.runtime.images.folders import Images, images_of
from stageproof.runtime.serialization.json_fields import parse
from stageproof.runtime.text.hints import command

STDIN = Path("-")


def bundle_and_images(paths: Sequence[Path], named: Path | None) -> tuple[Path, Images]:
    """The bundle or lone artifact to load, and the images in `paths`.

    named: value of --bundle, the only source of the model. A supplier of images must not be able to supply the model
    too, by a folder called `bundle`, a folder with a manifest, or a `000_localizer.pt2` that a shell pattern lists
    first: such a path among `paths` is treated as an unreadable image.

    Raises InputError if `named` is None.
    """
    if named is None:
        raise InputError(_unnamed(paths))
    return named, images_of(paths, closed=[path for path in paths if is_bundle(path)])


def is_bundle(path: Path) -> bool:
    """Whether `path` is a folder with a manifest of this project."""
    try:
        data = parse(read_once(path / MANIFEST, LARGEST, "manifest").decode("utf-8"), MANIFEST)
    except (OSError, ValueError, BundleError):
        return False
    return {"schema", "artifacts"} <= set(data)


def _unnamed(paths: Sequence[Path]) -> str:
    """The error message for a missing --bundle, with a suggested command."""
    first = paths[0] if paths else None
    meant = first if first is not None and is_bundle(first) else Path(DEFAULT_BUNDLE)
    rest = [path for path in paths if path != meant] or [Path("scan.jpg")]
    shown = command("runtime", "--bundle", meant, *rest[:3]) + (" …" if len(rest) > 3 else "")
    if not meant.exists():
        made = command("export", "--out", meant)
        return f"no bundle was given. Make one with: {made}; then run: {shown}"
    return (
        f"no bundle was given. Paths without --bundle are images, also {shlex.quote(str(meant))}. If you trust that "
        f"bundle, run: {shown}"
    )
