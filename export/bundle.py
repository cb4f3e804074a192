"""Write a bundle as one step: it is the old one or the new one at every moment, and holds only what passed."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import ExportError
from runtime.manifest import FILE, Artifact, artifact_path, read_manifest


@contextmanager
def staged(bundle: Path) -> Iterator[Path]:
    """A hidden folder beside `bundle` to build in; its content becomes the bundle if the body ends well.

    Raises ExportError when `bundle` is something else than a bundle, or cannot be written.
    """
    if bundle.exists() and not (bundle / FILE).is_file():
        kind = "a file" if bundle.is_file() else f"a folder without {FILE}"
        raise ExportError(f"{bundle} is {kind}, not a bundle. Give another --out; nothing was written.")
    try:
        bundle.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.partial-", dir=bundle.parent))
    except OSError as error:
        raise ExportError(f"{bundle} cannot be written: {error}. Give another --out.") from error
    try:
        folder.chmod(0o755)  # mkdtemp makes it private; a bundle is to be read by others
        yield folder
        _swap(folder, bundle)
    except OSError as error:
        raise ExportError(f"{bundle} could not be written: {error}. The old one, if any, is untouched.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def adopt(bundle: Path, model_digest: str, folder: Path, replaced: set[str]) -> tuple[Artifact, ...]:
    """Take over into `folder` what the present bundle holds of the same model, apart from the files in `replaced`.

    Returns what was taken over: nothing when there is no bundle, or it is of another model. Raises BundleError when a
    file of the present bundle was changed since its export.
    """
    if not bundle.exists():
        return ()
    manifest = read_manifest(bundle)
    if manifest.model.digest != model_digest:
        return ()
    kept = tuple(artifact for artifact in manifest.artifacts if artifact.file not in replaced)
    for artifact in kept:
        source = artifact_path(bundle, artifact)
        target = folder / artifact.file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)  # artifacts are never written in place, so two names may share one content
        except OSError:
            shutil.copy2(source, target)
    return kept


def _swap(folder: Path, bundle: Path) -> None:
    """Give `folder` the name `bundle`; what had it keeps `folder`'s name."""
    if not bundle.exists():
        folder.rename(bundle)
        return
    if not _exchange(folder, bundle):
        # No atomic exchange here: for a moment there is no bundle, and a kill then leaves both under hidden names.
        old = folder.with_name(folder.name + ".old")
        bundle.rename(old)
        folder.rename(bundle)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step with Linux's renameat2(2); False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    at_fdcwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return bool(renameat2(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), rename_exchange) == 0)
