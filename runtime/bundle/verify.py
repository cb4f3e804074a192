"""Is a bundle what its export wrote? Every file is looked at before any engine sees one. See docs/SEAL.md."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stageproof.runtime.artifacts.entries import FILE, LOGS, REJECTED, SIGNATURE, TENSOR, Artifact, Document, Golden
from stageproof.runtime.artifacts.files import LARGEST_MODEL
from stageproof.runtime.artifacts.metadata import FORMATS, Carried, carried
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends import BACKENDS
from stageproof.runtime.bundle.manifest import Manifest, artifact_bytes, artifact_path, read_manifest
from stageproof.runtime.errors import BundleError

UNSEALED_FOLDERS = {REJECTED: (".rejected", ".json"), LOGS: (".log",)}
"""Folders whose files no manifest names and nothing loads, and what the names in them end in."""


def verified(bundle: Path) -> Manifest:
    """The manifest of a bundle whose files are those of its export: none is missing, changed, outside or added, and
    what each artifact carries of labels, input and weights is what the manifest says.

    Raises BundleError naming the file. Hashes in parallel: about a second for a gigabyte a core.
    """
    manifest = read_manifest(bundle)
    Sealed(bundle, manifest)
    return manifest


class Sealed:
    """A bundle whose files were verified, and the bytes of them that were.

    keep: names of files whose bytes are kept until `read` gives them away, since they are loaded next. Others are read
    and verified once more by `read`: what it returns has the manifest's digest in any case.
    """

    def __init__(self, bundle: Path, manifest: Manifest, keep: Collection[str] = ()) -> None:
        self.bundle, self.manifest = bundle, manifest
        assert_nothing_else(bundle, manifest)

        def look(entry: Artifact | Document | Golden) -> bytes | None:
            if entry.file in keep:
                return artifact_bytes(bundle, entry)
            artifact_path(bundle, entry)
            return None

        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="stageproof-hash") as pool:
            found = pool.map(look, manifest.files)
            kept = {entry.file: content for entry, content in zip(manifest.files, found, strict=True) if content}
        self._kept = kept
        for artifact in manifest.artifacts:
            assert_described(bundle, manifest, artifact, kept.get(artifact.file))

    def read(self, entry: Artifact | Document | Golden, most: int = LARGEST_MODEL) -> bytes:
        """The content of the file, which has the manifest's digest. Raises BundleError where it no longer has."""
        content = self._kept.pop(entry.file, None)
        return artifact_bytes(self.bundle, entry, most) if content is None else content

    def model(self, artifact: Artifact) -> ModelFile:
        """The artifact, with the weights beside it, for an engine. Raises BundleError, also where what it carries is
        not what the manifest says."""
        content = self.read(artifact)
        assert_described(self.bundle, self.manifest, artifact, content)
        beside = weights_of(self.manifest, artifact)
        weights = None if beside is None else self.read(beside)
        return ModelFile(self.bundle / artifact.file, content, weights, artifact.takes)


def weights_of(manifest: Manifest, artifact: Artifact) -> Document | None:
    """The weights of an OpenVINO network, a file beside it; None for other formats."""
    if artifact.format != "openvino":
        return None
    name = artifact.file.removesuffix(".xml") + ".bin"
    return next((document for document in manifest.documents if document.file == name), None)


def assert_nothing_else(bundle: Path, manifest: Manifest) -> None:
    """Raise BundleError, naming it, for anything in the bundle that its manifest does not name.

    Beside what is named there may be: the manifest, `model.sig`, and in `rejected/` and `logs/` regular files whose
    names end as in `UNSEALED_FOLDERS`. No link, no other folder, no hidden file, and each name exactly as it is written
    in the manifest, also where the file system takes another case for the same.
    """
    files = {entry.file for entry in manifest.files} | {FILE, SIGNATURE}
    folders = {parent.as_posix() for file in files for parent in Path(file).parents} - {"."}
    for entry, file in _walk(bundle):
        if entry.is_symlink():
            raise BundleError(
                f"{_shown(entry)} is a symbolic link{_outside(bundle, Path(entry.path))}. Nothing was loaded. Put a "
                "copy of the file in its place."
            )
        if file in files and not entry.is_file(follow_symlinks=False):
            raise BundleError(
                f"{_shown(entry)} is no regular file, which the manifest says it is. Copy the bundle again, or export "
                "again."
            )
        folder, _, name = file.rpartition("/")
        if entry.is_dir(follow_symlinks=False):
            known = file in folders or file in UNSEALED_FOLDERS
        elif folder in UNSEALED_FOLDERS:
            known = name.endswith(UNSEALED_FOLDERS[folder]) and entry.is_file(follow_symlinks=False)
        else:
            known = file in files
        if not known:
            raise BundleError(
                f"{_shown(entry)} is not named by the manifest: it was added{_similar(file, files | folders)} after "
                "export. Nothing was loaded. Remove it, or copy the bundle again."
            )


def assert_described(bundle: Path, manifest: Manifest, artifact: Artifact, content: bytes | None = None) -> None:
    """Raise BundleError, naming file and key, where an artifact, whose SHA-256 is right, and its manifest contradict
    each other: a digest is computed again by whoever changes the manifest, an artifact is not so easily.

    content: the artifact's bytes, where they were read already."""
    path, where = bundle / artifact.file, bundle / FILE
    if artifact.format not in FORMATS or not artifact.file.endswith(FORMATS[artifact.format][0]):
        raise BundleError(
            f"{where} calls {artifact.file} {artifact.format!r}, expected one of "
            f"{', '.join(f'{name} (*{suffix})' for name, (suffix, _) in FORMATS.items())}. Not loaded. Export again."
        )
    for check in artifact.checks:
        if check.backend in BACKENDS and artifact.format not in BACKENDS[check.backend].FORMATS:
            raise BundleError(
                f"{where}: backend {check.backend!r} does not run {artifact.format}, which {artifact.file} is. Not "
                "loaded. Export again."
            )
    if artifact.format == "openvino" and weights_of(manifest, artifact) is None:
        beside = artifact.file.removesuffix(".xml") + ".bin"
        raise BundleError(f"{where} does not name {beside}, the weights of {artifact.file}. Not loaded. Export again.")
    size = path.stat().st_size if content is None else len(content)
    if size != artifact.size_bytes:
        raise BundleError(
            f"{path} has {size} bytes, and {where} says 'size_bytes' {artifact.size_bytes}: it was changed after "
            "export. Not loaded. Copy the bundle again, or export again."
        )
    found = carried(path, artifact.format, content)
    if found is not None and (different := contradiction(found, manifest, artifact)):
        key, inside, outside = different
        raise BundleError(
            f"{path} carries {key} {inside}, and {where} says {outside}: one of the two was changed after export. Not "
            "loaded. Copy the bundle again, or export again."
        )


def contradiction(found: Carried, manifest: Manifest, artifact: Artifact) -> tuple[str, Any, Any] | None:
    """The first key that the artifact carries another value of than the manifest says, and both values."""
    # What AOTInductor made in version 0.1 does not say what it takes.
    takes = found.takes or (artifact.takes if artifact.format == "aotinductor" else TENSOR)
    inside: dict[str, Any] = {**found.model.to_dict(), "takes": takes}
    outside: dict[str, Any] = {**manifest.model.to_dict(), "takes": artifact.takes}
    inside |= {f"input {key}": value for key, value in inside.pop("input").items()}
    outside |= {f"input {key}": value for key, value in outside.pop("input").items()}
    inside["study"], outside["study"] = inside.get("study"), outside.get("study")  # in one of the two only: changed
    if found.precision is not None:
        inside["precision"], outside["precision"] = found.precision, artifact.precision
    if found.labels_from is not None:
        inside["labels_from"], outside["labels_from"] = found.labels_from, manifest.labels_from
    if found.guarded and manifest.guard is None:
        inside["guard"], outside["guard"] = "of its bundle", "none"
    return next(((key, inside[key], outside[key]) for key in inside if inside[key] != outside[key]), None)


def _walk(bundle: Path) -> list[tuple[os.DirEntry[str], str]]:
    """Everything in the bundle, folders before what is in them, with its path in the bundle; links are not followed."""
    found, waiting = [], [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(bundle / folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise BundleError(f"{bundle / folder} cannot be read: {error.strerror}. Copy the bundle again.") from error
        for entry in inside:
            file = f"{folder}/{entry.name}" if folder else entry.name
            found.append((entry, file))
            if entry.is_dir(follow_symlinks=False):
                waiting.append(file)
    return found


def _shown(entry: os.DirEntry[str]) -> str:
    """The path, quoted where it holds what a terminal would take for a command."""
    return entry.path if entry.path.isprintable() else repr(entry.path)


def _similar(file: str, known: set[str]) -> str:
    """`` or renamed from NAME`` where only case tells the two apart."""
    other = next((name for name in sorted(known) if name.casefold() == file.casefold()), None)
    return f", or renamed from {other}," if other else ""


def _outside(bundle: Path, path: Path) -> str:
    try:
        inside = path.resolve().is_relative_to(bundle.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself
        inside = True
    return "" if inside else " that leaves the bundle"
