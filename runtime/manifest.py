"""The bundle's manifest: what is in the bundle, what it was measured to do, and where it came from.

A bundle is a folder with a `manifest.json` (this module) and the files it names. Schema 1:

    schema        1
    model         ModelInfo: architecture, digest, labels and their clinical order, input, temperature
    provenance    dataset digest, split, checkpoint digest, versions: what the chain of evidence starts from
    artifacts     [Artifact]: format, precision, file, SHA-256, size, and `checks`
    checks        [Check]: one for each backend that ran this very file at export and passed parity

Parity belongs to a file *and* the engine that ran it: the same fp32 ONNX file flips decisions in one engine and not
in another. That is why figures hang on a Check, not on an Artifact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from runtime.errors import BundleError
from runtime.labels import canonical_label, clinical_order
from runtime.preprocess import InputSpec

SCHEMA = 1
FILE = "manifest.json"
METADATA_KEY = "neurostage"
"""Under this key an artifact carries its ModelInfo (ONNX metadata_props, TorchScript extra files)."""


@dataclass(frozen=True)
class ModelInfo:
    """What an artifact needs to be understood on its own."""

    architecture: str
    digest: str
    """SHA-256 of the reference weights, hexadecimal."""
    labels: tuple[str, ...]
    """Class names in the order of the model's outputs."""
    input: InputSpec
    temperature: float = 1.0
    """Logits are divided by this before softmax (Guo et al. 2017)."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {
            "architecture": self.architecture,
            "digest": self.digest,
            "labels": list(self.labels),
            "clinical_order": list(clinical_order(self.labels)),
            "input": self.input.to_dict(),
            "temperature": self.temperature,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> ModelInfo:
        """The model described by `data`. Raises BundleError, naming `where`, for anything missing or impossible."""
        labels = tuple(_field(data, "labels", list, where))
        unknown = [label for label in labels if not isinstance(label, str) or canonical_label(label) != label]
        if len(labels) < 2 or unknown or len(set(labels)) != len(labels):
            raise BundleError(f"{where}: labels are {list(labels)}, expected distinct canonical class names.")
        temperature = float(_field(data, "temperature", (int, float), where))
        if not 0 < temperature < float("inf"):
            raise BundleError(f"{where}: temperature is {temperature}, expected a positive number.")
        return cls(
            architecture=_field(data, "architecture", str, where),
            digest=_field(data, "digest", str, where),
            labels=labels,
            input=InputSpec.from_dict(_field(data, "input", dict, where)),
            temperature=temperature,
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelInfo:
        """As `from_dict`, from the text that an artifact carries."""
        return cls.from_dict(_parse(text, where), where)


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


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`."""

    model: ModelInfo
    artifacts: tuple[Artifact, ...]
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {
            "schema": SCHEMA,
            "model": self.model.to_dict(),
            "provenance": self.provenance,
            "artifacts": [asdict(artifact) for artifact in self.artifacts],
        }

    def to_json(self) -> str:
        """The text of `manifest.json`."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Manifest:
        """The manifest described by `data`. Raises BundleError, naming `where`, for what this runtime cannot read."""
        schema = data.get("schema")
        if schema != SCHEMA:
            raise BundleError(
                f"{where} has schema {schema!r}, this runtime reads {SCHEMA}. Export again, or upgrade neurostage."
            )
        artifacts = tuple(_artifact(entry, where) for entry in _field(data, "artifacts", list, where))
        files = [artifact.file for artifact in artifacts]
        if len(set(files)) != len(files):
            raise BundleError(f"{where} names a file twice: {files}. Export again.")
        return cls(
            model=ModelInfo.from_dict(_field(data, "model", dict, where), where),
            artifacts=artifacts,
            provenance=_field(data, "provenance", dict, where),
        )


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of the bundle folder. Raises BundleError when it is missing or cannot be read by this runtime."""
    path = bundle / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise BundleError(
            f"{bundle} holds no {FILE}: it is not a bundle. Make one with: python -m export --out {bundle}"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}.") from error
    return Manifest.from_dict(_parse(text, str(path)), str(path))


def artifact_path(bundle: Path, artifact: Artifact) -> Path:
    """Where the artifact lies, after comparing its SHA-256. Raises BundleError if missing, changed or outside."""
    path = bundle / artifact.file
    if not path.resolve().is_relative_to(bundle.resolve()):
        raise BundleError(f"{artifact.file} leaves the bundle {bundle}. Not loaded.")
    if not path.is_file():
        raise BundleError(f"{path} is missing though the manifest names it. Copy the bundle again, or export again.")
    found = sha256_file(path)
    if found != artifact.sha256:
        raise BundleError(
            f"{path} has SHA-256 {found[:12]}…, the manifest says {artifact.sha256[:12]}…: the file was changed after "
            "export. Not loaded. Copy the bundle again, or export again."
        )
    return path


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _artifact(entry: Any, where: str) -> Artifact:
    if not isinstance(entry, dict):
        raise BundleError(f"{where}: artifacts holds {type(entry).__name__}, expected objects.")
    file = _field(entry, "file", str, where)
    parts = PurePosixPath(file)
    if parts.is_absolute() or ".." in parts.parts or "\\" in file or ":" in file or not parts.parts:
        raise BundleError(f"{where}: artifact file {file!r} is not a relative path inside the bundle. Not loaded.")
    checks = []
    for check in _field(entry, "checks", list, where):
        if not isinstance(check, dict):
            raise BundleError(f"{where}: checks of {file} holds {type(check).__name__}, expected objects.")
        checks.append(
            Check(
                backend=_field(check, "backend", str, where),
                engine=_field(check, "engine", str, where),
                parity=_field(check, "parity", dict, where),
                latency_ms=float(_field(check, "latency_ms", (int, float), where)),
                machine=_field(check, "machine", str, where),
            )
        )
    return Artifact(
        format=_field(entry, "format", str, where),
        precision=_field(entry, "precision", str, where),
        file=file,
        sha256=_field(entry, "sha256", str, where),
        size_bytes=_field(entry, "size_bytes", int, where),
        checks=tuple(checks),
    )


def _field(data: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    if key not in data:
        raise BundleError(f"{where} lacks {key!r}. Export again.")
    value = data[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = " or ".join(k.__name__ for k in (kind if isinstance(kind, tuple) else (kind,)))
        raise BundleError(f"{where}: {key!r} is {type(value).__name__}, expected {wanted}. Export again.")
    return value


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{where} is not JSON ({error}). Copy the bundle again, or export again.") from error
    if not isinstance(data, dict):
        raise BundleError(f"{where} holds {type(data).__name__}, expected an object. Export again.")
    return data
