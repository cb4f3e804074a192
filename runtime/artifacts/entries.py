"""Entries of a manifest, parsed strictly: artifacts with their parity checks, golden images, documents."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import PurePosixPath
from typing import Any

from stageproof.runtime.errors import BundleError
from stageproof.runtime.serialization.digests import DIGEST
from stageproof.runtime.serialization.json_fields import assert_plain, exactly, field, is_number, number, objects, text

TENSOR = "float32 (N, C, H, W)"
"""Default input of an artifact: the output of `runtime.preprocess`."""

FILE = "manifest.json"
SIGNATURE = "model.sig"
REJECTED = "rejected"
"""Folder of artifacts that failed the parity gate, with their reports. They end in `.rejected` and are never loaded."""
LOGS = "logs"
"""Folder of the engines' output during the export."""
UNNAMED = (FILE, SIGNATURE, REJECTED, LOGS)
"""Files and folders that a bundle may contain but its manifest must not list."""

_ARTIFACT = ("format", "precision", "file", "sha256", "size_bytes", "checks", "requires", "takes")
_CHECK = ("backend", "engine", "parity", "latency_ms", "machine")
_MEASURED = ("tolerance", "max_probability_difference")
"""Numbers in a check's parity that `runtime.inference.self_test` and `export --rebuild` read."""


@dataclass(frozen=True)
class Check:
    """A backend in which the artifact passed parity at export."""

    backend: str
    engine: str
    """Name and version of the engine, such as ``onnxruntime 1.31.1``."""
    parity: dict[str, Any]
    latency_ms: float
    """Median latency of the engine for one image, on `machine`."""
    machine: str


@dataclass(frozen=True)
class Artifact:
    """An exported file and its parity checks."""

    format: str
    precision: str
    file: str
    """Relative to the bundle, with forward slashes."""
    sha256: str
    size_bytes: int
    checks: tuple[Check, ...]
    requires: dict[str, str] = dataclass_field(default_factory=dict)
    """Requirements of a compiled artifact, such as ``{"compute_capability": "8.9", "tensorrt": "11.0"}``."""
    takes: str = TENSOR
    """Input: `TENSOR`, or pixels for artifacts with built-in preprocessing, which Predictor never loads."""


@dataclass(frozen=True)
class Document:
    """A file of the bundle that is not an artifact."""

    file: str
    """Relative to the bundle, with forward slashes."""
    sha256: str


@dataclass(frozen=True)
class Golden:
    """An encoded image and the reference's logits for it."""

    file: str
    """Relative to the bundle, with forward slashes; an image that `runtime.read_image` reads."""
    sha256: str
    logits: tuple[float, ...]
    """Logits of the eager float32 reference, before temperature scaling, in the order of the model's outputs."""


def read_artifact(entry: dict[str, Any], where: str) -> Artifact:
    """The artifact in `entry`. Raises BundleError, naming `where` and the key, for missing or invalid values."""
    exactly(entry, where, _ARTIFACT)
    file, sha256 = _file(entry, where)
    requires = field(entry, "requires", dict, where)
    if not all(isinstance(value, str) and value.isprintable() for pair in requires.items() for value in pair):
        raise BundleError(f"{where}: 'requires' of {file} has other values than printable text. Export again.")
    size: int = field(entry, "size_bytes", int, where)
    if size < 0:
        raise BundleError(f"{where}: 'size_bytes' is {size}, expected 0 or more. Export again.")
    return Artifact(
        format=text(entry, "format", where),
        precision=text(entry, "precision", where),
        file=file,
        sha256=sha256,
        size_bytes=size,
        checks=tuple(
            _check(check, f"{where}.checks[{index}]") for index, check in enumerate(objects(entry, "checks", where))
        ),
        requires=requires,
        takes=text(entry, "takes", where),
    )


def read_document(entry: dict[str, Any], where: str) -> Document:
    """As `read_artifact`, for a document."""
    exactly(entry, where, ("file", "sha256"))
    return Document(*_file(entry, where))


def read_golden(entry: dict[str, Any], where: str) -> Golden:
    """As `read_artifact`, for a golden image."""
    exactly(entry, where, ("file", "sha256", "logits"))
    file, sha256 = _file(entry, where)
    logits = field(entry, "logits", list, where)
    if not all(is_number(value) for value in logits):
        raise BundleError(f"{where}: logits of {file} are not all finite numbers. Export again.")
    return Golden(file, sha256, tuple(float(value) for value in logits))


def _check(entry: dict[str, Any], where: str) -> Check:
    exactly(entry, where, _CHECK)
    parity = field(entry, "parity", dict, where)
    assert_plain(parity, f"{where}.parity")
    for key in _MEASURED:
        if key in parity:
            number(parity, key, f"{where}.parity")
    latency = number(entry, "latency_ms", where)
    if latency < 0:
        raise BundleError(f"{where}: 'latency_ms' is {latency}, expected 0 or more. Export again.")
    return Check(
        backend=text(entry, "backend", where),
        engine=text(entry, "engine", where),
        parity=parity,
        latency_ms=latency,
        machine=text(entry, "machine", where),
    )


def _file(entry: dict[str, Any], where: str) -> tuple[str, str]:
    """The entry's relative path, which cannot leave the bundle, and its SHA-256."""
    file: str = field(entry, "file", str, where)
    sha256: str = field(entry, "sha256", str, where)
    parts = PurePosixPath(file)
    odd = "\\" in file or ":" in file or not file.isprintable() or str(parts) != file
    if odd or parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise BundleError(f"{where}: file {file!r} is not a relative path inside the bundle. Not loaded.")
    if parts.parts[0].lower() in UNNAMED:
        raise BundleError(
            f"{where}: file {file!r} is not a relative path inside the bundle that may be listed: {', '.join(UNNAMED)} "
            "are reserved. Not loaded. Export again."
        )
    if not DIGEST.fullmatch(sha256):
        raise BundleError(f"{where}: sha256 of {file} is not 64 hexadecimal digits. Export again.")
    return file, sha256
