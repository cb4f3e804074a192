"""Verification of a bundle's files against its manifest, before any engine loads one. See docs/SEAL.md."""

from __future__ import annotations

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stageproof.runtime.artifacts.entries import FILE, LOGS, REJECTED, SIGNATURE, TENSOR, Artifact, Document, Golden
from stageproof.runtime.artifacts.files import LARGEST_MODEL
from stageproof.runtime.artifacts.metadata import FORMATS, ArtifactMetadata, read_metadata
from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends import BACKENDS
from stageproof.runtime.bundle.manifest import Manifest, artifact_bytes, artifact_path, read_manifest
from stageproof.runtime.errors import BundleError

UNSEALED_FOLDERS = {REJECTED: (".rejected", ".json"), LOGS: (".log",)}
"""Folder → allowed suffixes, for folders whose files are not listed in the manifest and never loaded."""


def verified(bundle: Path) -> Manifest:
    """The manifest of a verified bundle: no file is missing, changed, outside the bundle or additional, and the
    metadata in each artifact (labels, input, weights) matches the manifest.

    Raises BundleError naming the file. Hashes in parallel: about a second per gigabyte and core.
    """
    manifest = read_manifest(bundle)
    Sealed(bundle, manifest)
    return manifest


class Sealed:
    """A bundle whose files were verified, and access to their verified bytes.

    keep: names of files that are loaded next; their bytes are kept in memory until `read` returns them. `read` reads
    and verifies all other files again, so that the bytes it returns always have the manifest's digest.
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
        """The content of the file. Raises BundleError if it no longer has the manifest's digest."""
        content = self._kept.pop(entry.file, None)
        return artifact_bytes(self.bundle, entry, most) if content is None else content

    def model(self, artifact: Artifact) -> ModelFile:
        """The artifact and its separate weights file, for an engine. Raises BundleError if a digest or the artifact's
        metadata differs from the manifest."""
        content = self.read(artifact)
        assert_described(self.bundle, self.manifest, artifact, content)
        beside = weights_of(self.manifest, artifact)
        weights = None if beside is None else self.read(beside)
        return ModelFile(self.bundle / artifact.file, content, weights, artifact.takes)


def weights_of(manifest: Manifest, artifact: Artifact) -> Document | None:
    """The weights file of an OpenVINO network; None for other formats."""
    if artifact.format != "openvino":
        return None
    name = artifact.file.removesuffix(".xml") + ".bin"
    return next((document for document in manifest.documents if document.file == name), None)


def assert_nothing_else(bundle: Path, manifest: Manifest) -> None:
    """Raise BundleError, naming the file, for anything in the bundle that is not listed in its manifest.

    Allowed besides listed files: the manifest, `model.sig`, and in `rejected/` and `logs/` regular files with the
    suffixes of `UNSEALED_FOLDERS`. Links, other folders and hidden files are errors, and so is a name in another case
    than in the manifest, also on case-insensitive file systems.
    """
    files = {entry.file for entry in manifest.files} | {FILE, SIGNATURE}
    folders = {parent.as_posix() for file in files for parent in Path(file).parents} - {"."}
    for entry, file in _walk(bundle):
        if entry.is_symlink():
            raise BundleError(
                f"{_shown(entry)} is a symbolic link{_outside(bundle, Path(entry.path))}. Nothing was loaded. Replace "
                "it by a copy of the file."
            )
        if file in files and not entry.is_file(follow_symlinks=False):
            raise BundleError(
                f"{_shown(entry)} is not a regular file, as its entry in the manifest requires. Copy the bundle again, "
                "or export again."
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
                f"{_shown(entry)} is not listed in the manifest: it was added{_similar(file, files | folders)} after "
                "export. Nothing was loaded. Remove it, or copy the bundle again."
            )


def assert_described(bundle: Path, manifest: Manifest, artifact: Artifact, content: bytes | None = None) -> None:
    """Raise BundleError, naming file and key, if an artifact's metadata contradicts its manifest. An attacker who edits
    the manifest can recompute digests; changing the metadata inside artifacts to match is harder.

    content: the artifact's bytes, if already read."""
    path, where = bundle / artifact.file, bundle / FILE
    if artifact.format not in FORMATS or not artifact.file.endswith(FORMATS[artifact.format][0]):
        raise BundleError(
            f"{where}: the format of {artifact.file} is {artifact.format!r}, expected one of "
            f"{', '.join(f'{name} (*{suffix})' for name, (suffix, _) in FORMATS.items())}. Not loaded. Export again."
        )
    for check in artifact.checks:
        if check.backend in BACKENDS and artifact.format not in BACKENDS[check.backend].FORMATS:
            raise BundleError(
                f"{where}: backend {check.backend!r} does not run {artifact.format}, the format of {artifact.file}. "
                "Not loaded. Export again."
            )
    if artifact.format == "openvino" and weights_of(manifest, artifact) is None:
        beside = artifact.file.removesuffix(".xml") + ".bin"
        raise BundleError(f"{where} does not list {beside}, the weights of {artifact.file}. Not loaded. Export again.")
    size = path.stat().st_size if content is None else len(content)
    if size != artifact.size_bytes:
        raise BundleError(
            f"{path} has {size} bytes, but 'size_bytes' in {where} is {artifact.size_bytes}: it was changed after "
            "export. Not loaded. Copy the bundle again, or export again."
        )
    found = read_metadata(path, artifact.format, content)
    if found is not None and (different := contradiction(found, manifest, artifact)):
        key, inside, outside = different
        raise BundleError(
            f"{path} has {key} {inside}, but {where} has {outside}: one of the two was changed after export. Not "
            "loaded. Copy the bundle again, or export again."
        )


def contradiction(found: ArtifactMetadata, manifest: Manifest, artifact: Artifact) -> tuple[str, Any, Any] | None:
    """The first metadata key whose value in the artifact differs from the manifest, and both values; None if none."""
    # AOTInductor packages of version 0.1 do not record their input.
    takes = found.takes or (artifact.takes if artifact.format == "aotinductor" else TENSOR)
    inside: dict[str, Any] = {**found.model.to_dict(), "takes": takes}
    outside: dict[str, Any] = {**manifest.model.to_dict(), "takes": artifact.takes}
    inside |= {f"input {key}": value for key, value in inside.pop("input").items()}
    outside |= {f"input {key}": value for key, value in outside.pop("input").items()}
    if found.precision is not None:
        inside["precision"], outside["precision"] = found.precision, artifact.precision
    if found.labels_from is not None:
        inside["labels_from"], outside["labels_from"] = found.labels_from, manifest.labels_from
    if found.guarded and manifest.guard is None:
        inside["guard"], outside["guard"] = "required", "none"
    if found.model.positive_recorded and not manifest.model.positive_recorded:
        outside["positive"] = None
    pairs = ((key, inside.get(key), outside.get(key)) for key in {**inside, **outside})  # study, head may be absent
    return next((pair for pair in pairs if pair[1] != pair[2]), None)


def _walk(bundle: Path) -> list[tuple[os.DirEntry[str], str]]:
    """All entries of the bundle with their relative paths, folders before their content; links are not followed."""
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
    """The path, quoted if it contains control characters."""
    return entry.path if entry.path.isprintable() else repr(entry.path)


def _similar(file: str, known: set[str]) -> str:
    """``, or renamed from NAME,`` if the names differ only in case; otherwise empty."""
    other = next((name for name in sorted(known) if name.casefold() == file.casefold()), None)
    return f", or renamed from {other}," if other else ""


def _outside(bundle: Path, path: Path) -> str:
    try:
        inside = path.resolve().is_relative_to(bundle.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself
        inside = True
    return "" if inside else " out of the bundle"
