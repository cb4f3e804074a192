"""Write a bundle as one step: it is the old one or the new one at every moment, and serves only what passed."""

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
"""Folder of the golden images, which every export draws again."""


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
        prefix = f".{bundle.name}.partial-"
        sweep(bundle.parent, f"{prefix}*")
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=bundle.parent))
        holder = hold(folder)
    except OSError as error:
        raise ExportError(f"{bundle} cannot be written: {error}. Give another --out.") from error
    try:
        yield folder
        unmark(folder)
        make_readable(folder)  # private while it was built, with images in it; a bundle is to be read by others
        _swap(folder, bundle)
    except OSError as error:
        raise ExportError(f"{bundle} could not be written: {error}. The old one, if any, is untouched.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        release(holder)


def adopt(
    bundle: Path, model: ModelInfo, folder: Path, replaced: set[str], labels_from: str | None = None
) -> tuple[list[Artifact], list[Document], dict[str, Any]]:
    """Take over into `folder` what the present bundle holds of the same model, apart from the files in `replaced`.

    Returns its artifacts, its documents but for the parity report (the files that lie beside artifacts, a model card),
    and the artifacts' parity reports: nothing when there is no bundle, or it is of another model. Other labels or
    another temperature are another model: they are inside the files too (`export.bundle.existing`), and so is
    `labels_from`, where the order of the classes comes from; None takes over whatever it is.
    Raises BundleError when a file of it was changed since its export.
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
    """Give the file another name, or copy it where the file system cannot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)  # files of a bundle are never written in place, so two names may share one content
    except OSError:
        shutil.copy2(source, target)


def reject(folder: Path, file: str, report: str | None) -> None:
    """Move what was built of `file`, and what lies beside it, to the rejected ones; without a report remove it."""
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


def kept_rejections(bundle: Path, folder: Path, asked: set[str]) -> None:
    """Take over the present bundle's rejected files, apart from those of artifacts that were built anew."""
    asked = {name for file in asked for name in _files_of(file)}
    for path in sorted((bundle / REJECTED).glob("*")):
        if path.name.removesuffix(".rejected").removesuffix(".json") not in asked:
            link(path, folder / REJECTED / path.name)


def _files_of(artifact: str) -> list[str]:
    """The artifact's file and those beside it: model.bin, OpenVINO's weights, belongs to model.xml, not to model.ts."""
    return [artifact, f"{Path(artifact).stem}.bin"] if artifact.endswith(".xml") else [artifact]


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
