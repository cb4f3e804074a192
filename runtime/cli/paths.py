"""Which of a command's paths is the bundle, and which are images: only --bundle names a model."""

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
    """The bundle or lone artifact to load, and the images that `paths` stand for.

    named: what --bundle says. Nothing else is ever the model: whoever brings the images may bring a folder called
    `bundle`, a folder with a manifest, or a `000_localizer.pt2` that a pattern of the shell lists first. A path of that
    kind among `paths` is an image that cannot be read.

    Raises InputError where no bundle is named.
    """
    if named is None:
        raise InputError(_unnamed(paths))
    return named, images_of(paths, closed=[path for path in paths if is_bundle(path)])


def is_bundle(path: Path) -> bool:
    """Whether a folder has a manifest that is ours."""
    try:
        data = parse(read_once(path / MANIFEST, LARGEST, "manifest").decode("utf-8"), MANIFEST)
    except (OSError, ValueError, BundleError):
        return False
    return {"schema", "artifacts"} <= set(data)


def _unnamed(paths: Sequence[Path]) -> str:
    """What to say where --bundle is missing, with the command that was probably meant."""
    first = paths[0] if paths else None
    meant = first if first is not None and is_bundle(first) else Path(DEFAULT_BUNDLE)
    rest = [path for path in paths if path != meant] or [Path("scan.jpg")]
    shown = command("runtime", "--bundle", meant, *rest[:3]) + (" …" if len(rest) > 3 else "")
    if not meant.exists():
        made = command("export", "--out", meant)
        return f"no bundle was named. Make one with: {made}; then name it: {shown}"
    return (
        f"no bundle was named. Paths without --bundle are images, also {shlex.quote(str(meant))}. If you trust that "
        f"bundle, name it: {shown}"
    )
