"""Writes a bundle atomically: at any moment the path has the old or the new bundle, never a part of one."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stageproof.runtime.artifacts.entries import REJECTED
from stageproof.runtime.bundle.manifest import FILE, Artifact, Document, artifact_path, read_manifest
from stageproof.runtime.errors import ExportError
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.system.work_folders import hold, make_readable, release, sweep, unmark

REPORT = "parity.json"
GOLDEN = "golden"
"""Folder of the golden images, which every export generates again."""


@contextmanager
def staged(bundle: Path) -> Iterator[Path]:
    """Yields a hidden folder beside `bundle` to build in; it replaces the bundle if the body raises no exception.

    Raises ExportError if `bundle` exists and is not a bundle, or cannot be written.
    """
    if bundle.exists() and not (bundle / FILE).is_file():
        kind = "a file" if bundle.is_file() else f"a folder without {FILE}"
        raise ExportError(f"{bundle} is {kind}, not a bundle. Give another --out; nothing was written.")
    try:
        bundle.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{bundle.name}.partial-"
        sweep(bundle.parent, f"{prefix}*")
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=bundle.parent))
        holder = hold(folder)
    except OSError as error:
        raise ExportError(f"{bundle} cannot be written: {error}. Give another --out.") from error
    try:
        yield folder
        unmark(folder)
        make_readable(folder)  # private during the build, since it had images; other users may read a bundle
        _swap(folder, bundle)
    except OSError as error:
        raise ExportError(f"{bundle} could not be written: {error}. The old bundle, if any, is unchanged.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        release(holder)


def adopt(
    bundle: Path, model: ModelInfo, folder: Path, replaced: set[str], labels_from: str | None = None
) -> tuple[list[Artifact], list[Document], dict[str, Any]]:
    """(artifacts, documents without the parity report, parity reports by file) of the existing bundle, linked into
    `folder`, except files in `replaced`. All empty if there is no bundle or it is of another model.

    Different labels or another temperature make it another model, since artifacts contain these values too
    (`export.bundle.existing`); so does another `labels_from`, the origin of the class order (None accepts any).
    Raises BundleError if one of its files was changed after the export.
    """
    manifest = read_manifest(bundle) if bundle.exists() else None
    if manifest is None or manifest.model != model:
        return [], [], {}
    if labels_from and manifest.labels_from not in (None, labels_from):
        return [], [], {}
    artifacts = [artifact for artifact in manifest.artifacts if artifact.file not in replaced]
    stems = {Path(artifact.file).stem for artifact in artifacts}
    documents = [
        document
        for document in manifest.documents
        if document.file not in {REPORT, *replaced}
        and not document.file.startswith(f"{GOLDEN}/")
        and (not document.file.endswith(".bin") or Path(document.file).stem in stems)
    ]
    for artifact in artifacts:
        link(artifact_path(bundle, artifact), folder / artifact.file)
    for document in documents:
        link(artifact_path(bundle, document), folder / document.file)
    report = next((document for document in manifest.documents if document.file == REPORT), None)
    reports = json.loads(artifact_path(bundle, report).read_text("utf-8"))["artifacts"] if report else {}
    return artifacts, documents, {file: value for file, value in reports.items() if file not in replaced}


def link(source: Path, target: Path) -> None:
    """Hard-link `source` to `target`, or copy it if the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)  # safe, since files of a bundle are never written in place
    except OSError:
        shutil.copy2(source, target)


def reject(folder: Path, file: str, report: str | None) -> None:
    """Move the files of artifact `file` to the rejected ones, with `report`; delete them if it is None."""
    built = [folder / name for name in _files_of(file) if (folder / name).exists()]
    if report is None:
        for path in built:
            path.unlink()
        return
    target = folder / REJECTED
    target.mkdir(exist_ok=True)
    for path in built:
        path.replace(target / f"{path.name}.rejected")
    (target / f"{file}.json").write_text(report, encoding="utf-8")


def kept_rejections(bundle: Path, folder: Path, built: set[str]) -> None:
    """Link the existing bundle's rejected files into `folder`, except those of artifacts that were built again."""
    built = {name for file in built for name in _files_of(file)}
    for path in sorted((bundle / REJECTED).glob("*")):
        if path.name.removesuffix(".rejected").removesuffix(".json") not in built:
            link(path, folder / REJECTED / path.name)


def _files_of(artifact: str) -> list[str]:
    """All files of an artifact: an OpenVINO .xml has its weights in a .bin of the same stem."""
    return [artifact, f"{Path(artifact).stem}.bin"] if artifact.endswith(".xml") else [artifact]


def _swap(folder: Path, bundle: Path) -> None:
    """Rename `folder` to `bundle`; an existing bundle gets the name of `folder`."""
    if not bundle.exists():
        folder.rename(bundle)
        return
    if not _exchange(folder, bundle):
        # Not atomic: for a moment there is no bundle; if killed then, both remain under hidden names.
        old = folder.with_name(folder.name + ".old")
        bundle.rename(old)
        folder.rename(bundle)
        shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Atomically exchange two paths with Linux's renameat2(2); False if the system does not support it."""
    if not sys.platform.startswith("linux"):
        return False
    at_fdcwd, rename_exchange = -100, 2
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    return bool(renameat2(at_fdcwd, os.fsencode(first), at_fdcwd, os.fsencode(second), rename_exchange) == 0)
