"""The bundle's manifest: what is in the bundle, what it was measured to do, and where it came from.

A bundle is a folder with a `manifest.json` (this module) and the files it names. Schema 1; * marks optional keys:

    schema        1
    model         ModelInfo: architecture, digest, labels and their clinical order, input, temperature, abstain_below*
    provenance    dataset digest, split, checkpoint digest, versions: what the chain of evidence starts from
    artifacts     [Artifact]: format, precision, file, SHA-256, size, `checks`, `requires`*, `takes`*
      checks      [Check]: one for each backend that ran this very file at export and passed parity
    guard*        {file, sha256}: the file that `runtime.guard.Guard.write` made of the training slices
    labels_from*  where the order of the classes comes from (`runtime.labels.LABELS_FROM`); not in bundles of 0.1
    golden*       [{file, sha256, logits}]: encoded images and the eager float32 reference's logits for each, which
                  `Predictor.self_test` replays; files under golden/
    documents*    [{file, sha256}]: everything else in the bundle: model card, parity report, the sidecars of artifacts
    sha256*       of this text, its own 64 digits counted as zeros; `Manifest.to_json` writes it

Keys that schema 1 does not have are refused: one that is not understood may be the one that protects a patient.
All paths are relative to the bundle, with forward slashes. Every file named is hashed before anything is loaded, and
a file that is an artifact by its suffix but is not named is refused (`runtime.integrity`).

Parity belongs to a file *and* the engine that ran it: the same fp32 ONNX file flips decisions in one engine and not
in another. That is why figures hang on a Check, not on an Artifact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import field as dataclass_field
from pathlib import Path, PurePosixPath
from typing import Any

from runtime.digests import DIGEST, UNSEALED, is_sealed, seal, sha256_file
from runtime.errors import BundleError
from runtime.fields import field, is_number, number, objects, parse
from runtime.hints import command
from runtime.labels import LABELS_FROM
from runtime.model import ModelInfo

SCHEMA = 1
FILE = "manifest.json"
_KEYS = {"schema", "model", "provenance", "artifacts", "guard", "labels_from", "golden", "documents", "sha256"}
METADATA_KEY = "neurostage"
"""Under this key an artifact carries its ModelInfo (ONNX metadata_props, TorchScript extra files)."""

TENSOR = "float32 (N, C, H, W)"
"""What an artifact takes unless its manifest says otherwise: the output of `runtime.preprocess`."""


@dataclass(frozen=True)
class Check:
    """One backend that ran the artifact at export and passed parity there."""

    backend: str
    engine: str
    """Name and version of the engine, such as ``onnxruntime 1.31.1``."""
    parity: dict[str, Any]
    latency_ms: float
    """Median of one image, engine only, on `machine`."""
    machine: str


@dataclass(frozen=True)
class Artifact:
    """One exported file and the backends it was checked in."""

    format: str
    precision: str
    file: str
    """Relative to the bundle, with forward slashes."""
    sha256: str
    size_bytes: int
    checks: tuple[Check, ...]
    requires: dict[str, str] = dataclass_field(default_factory=dict)
    """What a compiled artifact was built for, such as ``{"compute_capability": "8.9", "tensorrt": "11.0"}``."""
    takes: str = TENSOR
    """`TENSOR`; anything else is for programs that have no `preprocess`, and Predictor never serves it."""


@dataclass(frozen=True)
class Document:
    """A file of the bundle that no engine loads."""

    file: str
    """Relative to the bundle, with forward slashes."""
    sha256: str


@dataclass(frozen=True)
class Golden:
    """An encoded image and what the reference makes of it."""

    file: str
    """Relative to the bundle, with forward slashes; an image that `runtime.read_image` reads."""
    sha256: str
    logits: tuple[float, ...]
    """Of the eager float32 reference, before temperature, in the order of the model's outputs."""


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
        """Everything that the manifest names."""
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
        """The text of `manifest.json`, its own SHA-256 included."""
        return seal(json.dumps({**self.to_dict(), "sha256": UNSEALED}, indent=2) + "\n")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Manifest:
        """The manifest described by `data`. Raises BundleError, naming `where`, for what this runtime cannot read."""
        schema = data.get("schema")
        if schema != SCHEMA or isinstance(schema, bool):
            raise BundleError(
                f"{where} has schema {schema!r}, this runtime reads {SCHEMA}. Export again, or upgrade neurostage."
            )
        if unknown := sorted(set(data) - _KEYS):
            raise BundleError(
                f"{where} has keys that schema {SCHEMA} does not have: {', '.join(unknown)}. It was changed, or a "
                "newer neurostage wrote it: export again, or upgrade."
            )
        manifest = cls(
            model=ModelInfo.from_dict(field(data, "model", dict, where), where),
            artifacts=tuple(_artifact(entry, where) for entry in objects(data, "artifacts", where)),
            provenance=field(data, "provenance", dict, where),
            guard=_document(field(data, "guard", dict, where), where) if "guard" in data else None,
            golden=tuple(_golden(entry, where) for entry in objects(data, "golden", where, [])),
            documents=tuple(_document(entry, where) for entry in objects(data, "documents", where, [])),
            labels_from=_labels_from(data, where),
        )
        named = [entry.file for entry in manifest.files]
        if twice := sorted({file for file in named if named.count(file) > 1}):
            raise BundleError(f"{where} names a file twice: {', '.join(twice)}. Export again.")
        if wrong := [golden.file for golden in manifest.golden if len(golden.logits) != len(manifest.model.labels)]:
            raise BundleError(f"{where}: {wrong[0]} has not one logit for each label. Export again.")
        return manifest


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of the bundle folder. Raises BundleError when it is missing or cannot be read by this runtime."""
    path = bundle / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        made = command(
            "export", "--out", "NEW_FOLDER" if bundle.exists() else bundle
        )  # export replaces no other folder
        raise BundleError(f"{bundle} holds no {FILE}: it is not a bundle. Make one with: {made}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}.") from error
    data = parse(text, str(path))
    if "sha256" in data and not is_sealed(text, data["sha256"]):
        raise BundleError(
            f"{path} was changed after export: its text does not have the SHA-256 it states. Copy the bundle again, "
            "or export again."
        )
    return Manifest.from_dict(data, str(path))


def artifact_path(bundle: Path, artifact: Artifact | Document | Golden) -> Path:
    """Where the file lies, after comparing its SHA-256. Raises BundleError if missing, changed or outside."""
    path = bundle / artifact.file
    try:
        inside = path.resolve().is_relative_to(bundle.resolve())
    except (OSError, RuntimeError):  # a link that leads to itself
        inside = False
    if not inside:
        raise BundleError(f"{artifact.file} leaves the bundle {bundle}. Not loaded.")
    if not path.is_file():
        raise BundleError(f"{path} is missing though the manifest names it. Copy the bundle again, or export again.")
    try:
        found = sha256_file(path)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}. Copy the bundle again.") from error
    if found != artifact.sha256:
        raise BundleError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {artifact.sha256[:12]}…: the file was changed after "
            "export. Not loaded. Copy the bundle again, or export again."
        )
    return path


def _labels_from(data: Mapping[str, Any], where: str) -> str | None:
    if "labels_from" not in data:
        return None
    value: str = field(data, "labels_from", str, where)
    if value not in LABELS_FROM:
        raise BundleError(f"{where}: labels_from is {value!r}, expected one of {', '.join(LABELS_FROM)}. Export again.")
    return value


def _artifact(entry: dict[str, Any], where: str) -> Artifact:
    file, sha256 = _file(entry, where)
    checks = tuple(
        Check(
            backend=field(check, "backend", str, where),
            engine=field(check, "engine", str, where),
            parity=field(check, "parity", dict, where),
            latency_ms=number(check, "latency_ms", where),
            machine=field(check, "machine", str, where),
        )
        for check in objects(entry, "checks", where)
    )
    requires = field(entry, "requires", dict, where, {})
    if not all(isinstance(value, str) for value in requires.values()):
        raise BundleError(f"{where}: requires of {file} holds other values than text. Export again.")
    return Artifact(
        format=field(entry, "format", str, where),
        precision=field(entry, "precision", str, where),
        file=file,
        sha256=sha256,
        size_bytes=field(entry, "size_bytes", int, where),
        checks=checks,
        requires=requires,
        takes=field(entry, "takes", str, where, TENSOR),
    )


def _document(entry: dict[str, Any], where: str) -> Document:
    return Document(*_file(entry, where))


def _golden(entry: dict[str, Any], where: str) -> Golden:
    file, sha256 = _file(entry, where)
    logits = field(entry, "logits", list, where)
    if not all(is_number(value) for value in logits):
        raise BundleError(f"{where}: logits of {file} are not all finite numbers. Export again.")
    return Golden(file, sha256, tuple(float(value) for value in logits))


def _file(entry: dict[str, Any], where: str) -> tuple[str, str]:
    """The entry's relative path, which cannot leave the bundle, and its SHA-256."""
    file, sha256 = field(entry, "file", str, where), field(entry, "sha256", str, where)
    parts = PurePosixPath(file)
    odd = "\\" in file or ":" in file or "\0" in file or str(parts) != file
    if odd or parts.is_absolute() or ".." in parts.parts or not parts.parts or file == FILE:
        raise BundleError(f"{where}: file {file!r} is not a relative path inside the bundle. Not loaded.")
    if not DIGEST.fullmatch(sha256):
        raise BundleError(f"{where}: sha256 of {file} is not 64 hexadecimal digits. Export again.")
    return file, sha256
