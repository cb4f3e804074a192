"""A model as the bytes that were verified: what an engine is given instead of a path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.artifacts.entries import TENSOR
from stageproof.runtime.artifacts.files import LARGEST_MODEL, read_once
from stageproof.runtime.errors import BundleError

CODE = {
    "torchscript": "a TorchScript file is a program: it can read and write files and run for ever",
    "torch-export": "a .pt2 file is a program, whose loading evaluates expressions and may unpickle objects",
    "aotinductor": "an AOTInductor package is machine code for this processor",
    "tensorrt": "a TensorRT engine is machine code for a GPU and may bring code for this processor",
}
"""Formats that carry code, and why. Whoever loads such a file runs what its maker wrote."""


@dataclass(frozen=True)
class ModelFile:
    """An artifact and what lies beside it, read once. No engine opens its path."""

    path: Path
    """Where it was read, for messages."""
    content: bytes
    weights: bytes | None = None
    """Of the `.bin` beside an OpenVINO `.xml`."""
    takes: str = TENSOR
    """As `runtime.artifacts.entries.Artifact.takes`."""

    @classmethod
    def read(cls, path: Path, takes: str = TENSOR) -> ModelFile:
        """The file at `path`, and the `.bin` beside an `.xml`. Raises BundleError for what cannot be read."""
        beside = path.with_suffix(".bin")
        try:
            content = read_once(path, LARGEST_MODEL, f"{path.suffix} file")
            weights = read_once(beside, LARGEST_MODEL, "file of weights") if path.suffix == ".xml" else None
        except FileNotFoundError as error:
            raise BundleError(f"{error.filename} does not exist. Copy the bundle again, or export again.") from error
        return cls(path, content, weights, takes)

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of the file; of an `.xml` and its `.bin` both, with - between them."""
        files = [self.content] if self.weights is None else [self.content, self.weights]
        return "-".join(hashlib.sha256(file).hexdigest() for file in files)

    def __str__(self) -> str:
        return str(self.path)
