"""`ModelFile`: the verified bytes of an artifact, passed to engines instead of a path."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.artifacts.entries import TENSOR
from stageproof.runtime.artifacts.files import LARGEST_MODEL, read_once
from stageproof.runtime.errors import BundleError

CODE = {
    "torchscript": "a TorchScript file is a program: it can read and write files and may not terminate",
    "torch-export": "a .pt2 file is a program: loading it evaluates expressions and may unpickle objects",
    "aotinductor": "an AOTInductor package is machine code for this processor",
    "tensorrt": "a TensorRT engine is machine code for a GPU and may contain code for this processor",
}
"""Formats that contain code → explanation for messages. Loading such a file runs code of its author."""


@dataclass(frozen=True)
class ModelFile:
    """An artifact and its separate weights file, read once. No engine opens the path."""

    path: Path
    """Path of the file, for messages."""
    content: bytes
    weights: bytes | None = None
    """Content of the `.bin` of an OpenVINO `.xml`; None for other formats."""
    takes: str = TENSOR
    """As `runtime.artifacts.entries.Artifact.takes`."""

    @classmethod
    def read(cls, path: Path, takes: str = TENSOR) -> ModelFile:
        """The file at `path`, and the `.bin` of an `.xml`. Raises BundleError if one cannot be read."""
        beside = path.with_suffix(".bin")
        try:
            content = read_once(path, LARGEST_MODEL, f"{path.suffix} file")
            weights = read_once(beside, LARGEST_MODEL, "weights file") if path.suffix == ".xml" else None
        except FileNotFoundError as error:
            raise BundleError(f"{error.filename} does not exist. Copy the bundle again, or export again.") from error
        return cls(path, content, weights, takes)

    @property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of the file; for an `.xml`, those of it and its `.bin`, joined by ``-``."""
        files = [self.content] if self.weights is None else [self.content, self.weights]
        return "-".join(hashlib.sha256(file).hexdigest() for file in files)

    def __str__(self) -> str:
        return str(self.path)
