"""`Manifest`: reads and writes `manifest.json`, which lists a bundle's files, measurements and provenance.

A bundle is a folder with a `manifest.json` and the files listed in it. Schema 1; * marks optional keys:

    schema        1
    model         ModelInfo: architecture, digest, input, temperature, abstain_below, and
                  labels: the 2 to 20 classes in the order of the outputs; clinical_order: the same, the least severe
                  first; positive*: those that are positive, in clinical order; absent in 0.1: the usual ones
                  study* (runtime.study): how slices are combined into a study's probability; not in bundles of 0.1
                  head* (runtime.networks.spec): absent where it is the architecture's default
    provenance    dataset digest, split, checkpoint digest, versions
    artifacts     [Artifact]: format, precision, file, SHA-256, size, `checks`, `requires`, `takes`
      checks      [Check]: one for each backend in which this file passed parity at export
    guard*        {file, sha256}: file that `runtime.guard.ood_guard.Guard.write` wrote, fitted on the training slices
    labels_from*  origin of the class order (`runtime.labels.LABELS_FROM`); not in bundles of 0.1
    golden*       [{file, sha256, logits}]: encoded images with the logits of the eager float32 reference, for
                  `Predictor.self_test`; files under golden/
    documents*    [{file, sha256}]: all other files of the bundle: model card, parity report, sidecar files of artifacts
    sha256        SHA-256 of this text with these 64 digits replaced by zeros; `Manifest.to_json` writes it

An object has exactly these keys, each once; the content of `provenance`, `parity` and `requires` is free. All paths are
relative to the bundle, with forward slashes. Every listed file is hashed before anything is loaded, and files that are
not listed are errors (`runtime.bundle.verify`). docs/SEAL.md describes which attacks this prevents.

Parity is measured per file *and* engine, because the same fp32 ONNX file can change predictions in one engine and not
in another. The measurements are therefore part of a Check, not of an Artifact.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stageproof.runtime.artifacts.entries import (
    FILE,
    TENSOR,
    Artifact,
    Check,
    Document,
    Golden,
    read_artifact,
    read_document,
    read_golden,
)
from stageproof.runtime.artifacts.files import LARGEST_MODEL, read_once
from stageproof.runtime.artifacts.metadata import METADATA_KEY, labels_origin
from stageproof.runtime.errors import BundleError
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.serialization.digests import UNSEALED, is_sealed, seal, sha256_file
from stageproof.runtime.serialization.json_fields import assert_plain, exactly, field, objects, parse
from stageproof.runtime.text.hints import command

__all__ = [
    "DEFAULT_BUNDLE",
    "FILE",
    "LARGEST",
    "METADATA_KEY",
    "SCHEMA",
    "TENSOR",
    "Artifact",
    "Check",
    "Document",
    "Golden",
    "Manifest",
    "ModelInfo",
    "artifact_bytes",
    "artifact_path",
    "manifest_bytes",
    "parse_manifest",
    "read_manifest",
    "sha256_file",
]

DEFAULT_BUNDLE = "bundle"
"""Default folder of an export."""
SCHEMA = 1
_REQUIRED = ("model", "provenance", "artifacts")
_OPTIONAL = ("schema", "guard", "labels_from", "golden", "documents", "sha256")
LARGEST = 4 << 20
"""Limit on the bytes of a manifest: 25 times a bundle with every format and precision. Parsed, it takes 100 MB."""

MOST_FILES = 1000
"""Limit on the files of a bundle; one with every format and precision has sixty."""


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    model: ModelInfo
    artifacts: tuple[Artifact, ...]
    provenance: dict[str, Any]
    guard: Document | None = None
    golden: tuple[Golden, ...] = ()
    documents: tuple[Document, ...] = ()
    labels_from: str | None = None
    """One of `runtime.labels.LABELS_FROM`; None in a bundle that does not record it."""

    @property
    def files(self) -> tuple[Artifact | Document | Golden, ...]:
        """All files listed in the manifest."""
        return (*self.artifacts, *([self.guard] if self.guard else []), *self.golden, *self.documents)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        data = {
            "schema": SCHEMA,
            "model": self.model.to_dict(),
            "provenance": self.provenance,
            "artifacts": [asdict(artifact) for artifact in self.artifacts],
        }
        if self.guard:
            data["guard"] = asdict(self.guard)
        if self.labels_from:
            data["labels_from"] = self.labels_from
        if self.golden:
            data["golden"] = [{**asdict(golden), "logits": list(golden.logits)} for golden in self.golden]
        if self.documents:
            data["documents"] = [asdict(document) for document in self.documents]
        return data

    def to_json(self) -> str:
        """The text of `manifest.json`, including its own SHA-256."""
        return seal(json.dumps({**self.to_dict(), "sha256": UNSEALED}, indent=2, allow_nan=False) + "\n")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Manifest:
        """The manifest in `data`. Raises BundleError, naming `where`, for another schema or invalid values."""
        schema = data.get("schema")
        if schema != SCHEMA or isinstance(schema, bool):
            raise BundleError(
                f"{where} has schema {schema!r}, this runtime reads {SCHEMA}. Export again, or upgrade stageproof."
            )
        exactly(data, where, _REQUIRED, _OPTIONAL)
        assert_plain(data["provenance"], f"{where}: provenance")
        manifest = cls(
            model=ModelInfo.from_exact(field(data, "model", dict, where), f"{where}: model"),
            artifacts=tuple(read_artifact(*entry) for entry in _entries(data, "artifacts", where)),
            provenance=field(data, "provenance", dict, where),
            guard=read_document(field(data, "guard", dict, where), f"{where}: guard") if "guard" in data else None,
            golden=tuple(read_golden(*entry) for entry in _entries(data, "golden", where)),
            documents=tuple(read_document(*entry) for entry in _entries(data, "documents", where)),
            labels_from=labels_origin(data, where),
        )
        manifest.assert_consistent(where)
        return manifest

    def assert_consistent(self, where: str) -> None:
        """Raise BundleError, naming the file, where two entries contradict each other."""
        if len(self.files) > MOST_FILES:
            raise BundleError(f"{where} lists {len(self.files)} files, expected at most {MOST_FILES}. Export again.")
        seen: dict[str, str] = {}
        for entry in self.files:
            # Some file systems ignore case or Unicode normalisation when comparing names.
            name = unicodedata.normalize("NFC", entry.file).casefold()
            if name in seen:
                other = "" if seen[name] == entry.file else f" (as {seen[name]})"
                raise BundleError(f"{where} lists a file twice: {entry.file}{other}. Export again.")
            seen[name] = entry.file
        for golden in self.golden:
            if len(golden.logits) != len(self.model.labels):
                raise BundleError(
                    f"{where}: {golden.file} has {len(golden.logits)} logits, expected one for each of "
                    f"{len(self.model.labels)} labels. Export again."
                )


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of the bundle folder. Raises BundleError if it is missing, was changed after export, or has another
    schema."""
    return parse_manifest(manifest_bytes(bundle), bundle / FILE)


def manifest_bytes(bundle: Path) -> bytes:
    """The content of the bundle's `manifest.json`. Raises BundleError if it is missing, too large or unreadable."""
    try:
        return read_once(bundle / FILE, LARGEST, "manifest")
    except FileNotFoundError as error:
        made = command(
            "export", "--out", "NEW_FOLDER" if bundle.exists() else bundle
        )  # export replaces no other folder
        raise BundleError(f"{bundle} has no {FILE}: it is not a bundle. Make one with: {made}") from error


def parse_manifest(content: bytes, path: Path) -> Manifest:
    """The manifest parsed from `content`. path: its file, for messages. Raises as `read_manifest`."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} cannot be read: {error}.") from error
    data = parse(text, str(path))
    changed = "" if is_sealed(text, data.get("sha256")) else _changed(data)
    try:
        manifest = Manifest.from_dict(data, str(path))
    except BundleError as error:
        if changed and data.get("schema") == SCHEMA:
            raise BundleError(f"{error} {path} {changed}") from error
        raise
    if changed:
        raise BundleError(f"{path} {changed}")
    return manifest


def _changed(data: Mapping[str, Any]) -> str:
    """The reason why the digest check failed, to be appended to the path."""
    if "sha256" not in data:
        return (
            "lacks 'sha256', the digest of its own text: it was changed after export. Copy the bundle again, or export "
            "again."
        )
    return "was changed after export: its text does not match its own 'sha256'. Copy the bundle again, or export again."


def artifact_path(bundle: Path, artifact: Artifact | Document | Golden) -> Path:
    """Path of the file, whose SHA-256 was verified. Raises BundleError if missing, changed or outside the bundle.

    For files that are copied or hashed only. Files that are loaded are read by `artifact_bytes`, because the file could
    be replaced between this check and opening the path.
    """
    path = _inside(bundle, artifact)
    try:
        found = sha256_file(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}. Copy the bundle again.") from error
    _assert_digest(path, found, artifact.sha256)
    return path


def artifact_bytes(bundle: Path, artifact: Artifact | Document | Golden, most: int = LARGEST_MODEL) -> bytes:
    """Content of the file; the SHA-256 of exactly these bytes was verified. Raises BundleError as `artifact_path`, and
    for more than `most` bytes."""
    path = _inside(bundle, artifact)
    try:
        content = read_once(path, most, f"{path.suffix or path.name} file")
    except FileNotFoundError as error:
        raise BundleError(f"{path} is listed in the manifest but missing. Copy the bundle again.") from error
    _assert_digest(path, hashlib.sha256(content).hexdigest(), artifact.sha256)
    return content


def _inside(bundle: Path, artifact: Artifact | Document | Golden) -> Path:
    path = bundle / artifact.file
    try:
        inside = path.resolve().is_relative_to(bundle.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself
        inside = False
    if not inside:
        raise BundleError(f"{artifact.file} is outside the bundle {bundle}. Not loaded. Export again.")
    if not path.is_file():
        raise BundleError(f"{path} is listed in the manifest but missing. Copy the bundle again, or export again.")
    return path


def _assert_digest(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BundleError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {expected[:12]}…: the file was changed after "
            "export. Not loaded. Copy the bundle again, or export again."
        )


def _entries(data: Mapping[str, Any], key: str, where: str) -> list[tuple[dict[str, Any], str]]:
    """The objects at `key`, each with its position for messages; empty if the key is missing."""
    found = objects(data, key, where, []) if key in data else []
    return [(entry, f"{where}: {key}[{index}]") for index, entry in enumerate(found)]
