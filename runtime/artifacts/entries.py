"""The entries of a manifest: artifacts with their checks, golden images, documents, each read strictly."""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import PurePosixPath
from typing import Any

from stageproof.runtime.errors import BundleError
from stageproof.runtime.serialization.digests import DIGEST
from stageproof.runtime.serialization.json_fields import assert_plain, exactly, field, is_number, number, objects, text

TENSOR = "float32 (N, C, H, W)"
"""What an artifact takes unless its manifest says otherwise: the output of `runtime.preprocess`."""

FILE = "manifest.json"
SIGNATURE = "model.sig"
REJECTED = "rejected"
"""Folder of what failed the parity gate, each with its report. Its files end in `.rejected`: nothing loads them."""
LOGS = "logs"
"""Folder of what the engines printed during the export."""
UNNAMED = (FILE, SIGNATURE, REJECTED, LOGS)
"""What may lie in a bundle without standing in its manifest, and cannot stand there."""

_ARTIFACT = ("format", "precision", "file", "sha256", "size_bytes", "checks", "requires", "takes")
_CHECK = ("backend", "engine", "parity", "latency_ms", "machine")
_MEASURED = ("tolerance", "max_probability_difference")
"""Of a check's parity: the numbers that `runtime.inference.self_test` and `export --rebuild` go by."""


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


def read_artifact(entry: dict[str, Any], where: str) -> Artifact:
    """The artifact that `entry` describes. Raises BundleError, naming `where` and the key, for anything else."""
    exactly(entry, where, _ARTIFACT)
    file, sha256 = _file(entry, where)
    requires = field(entry, "requires", dict, where)
    if not all(isinstance(value, str) and value.isprintable() for pair in requires.items() for value in pair):
        raise BundleError(f"{where}: requires of {file} holds other values than text. Export again.")
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
    """As `read_artifact`, of a document."""
    exactly(entry, where, ("file", "sha256"))
    return Document(*_file(entry, where))


def read_golden(entry: dict[str, Any], where: str) -> Golden:
    """As `read_artifact`, of a golden image."""
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
            f"{where}: file {file!r} is not a relative path inside the bundle that may be named: {', '.join(UNNAMED)} "
            "are kept for other uses. Not loaded."
        )
    if not DIGEST.fullmatch(sha256):
        raise BundleError(f"{where}: sha256 of {file} is not 64 hexadecimal digits. Export again.")
    return file, sha256
