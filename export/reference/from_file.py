"""The reference of an export from a file of another program, by its content: checkpoint, ONNX or TorchScript."""

from __future__ import annotations

from pathlib import Path

from stageproof.export.reference.checkpoint import Described, from_checkpoint
from stageproof.export.reference.graph_file import from_onnx, from_torchscript
from stageproof.export.reference.graph_source import ONNX, kind_of
from stageproof.export.reference.model import Reference


def from_file(path: Path, described: Described) -> Reference:
    """The model of the file. Raises CheckpointError, InputError or TrustError as `from_checkpoint`, `from_onnx` and
    `from_torchscript`."""
    kind = kind_of(path)
    if kind is None:
        return from_checkpoint(path, described)
    return (from_onnx if kind == ONNX else from_torchscript)(path, described)
