"""ONNX and TorchScript files as references: what can be made from them, and what they must be like.

Imports neither torch nor onnx: options are checked before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stageproof.runtime.errors import CheckpointError, InputError, TrustError
from stageproof.runtime.labels import LARGEST
from stageproof.train.foreign.file_types import is_onnx, is_torchscript

ONNX, TORCHSCRIPT = "onnx-file", "torchscript-file"
"""Names of the two in place of an architecture."""
_MADE: dict[str, dict[str, tuple[str, ...]]] = {
    ONNX: {
        "onnx": ("fp32", "int8"),
        "openvino": ("fp32", "fp16", "int8"),
        "tensorrt": ("fp32", "int8", "fp8"),
    },
    TORCHSCRIPT: {
        "onnx": ("fp32", "int8"),
        "openvino": ("fp32", "fp16", "int8"),
        "torchscript": ("fp32",),
        "tensorrt": ("fp32", "int8", "fp8"),
    },
}
"""Kind → format → precisions that can be made from it."""
_WHAT = {ONNX: "an ONNX file", TORCHSCRIPT: "a TorchScript file"}


def kind_of(path: Path) -> str | None:
    """`ONNX` or `TORCHSCRIPT` by the content of the file; None for others."""
    if is_onnx(path):
        return ONNX
    return TORCHSCRIPT if is_torchscript(path) else None


def assert_trusted(path: Path, trust_code: bool) -> None:
    """Raise TrustError for a TorchScript file unless its code may run."""
    if not trust_code and is_torchscript(path):
        raise TrustError(
            f"{path} is a TorchScript file: it contains code, which loading it runs. Nothing was loaded. If you trust "
            "its origin, add --trust-code."
        )


def makeable(path: Path, wanted: Mapping[str, Sequence[str]], every: bool) -> dict[str, list[str]]:
    """Format → precisions among `wanted` that can be made from the file; all of them for a checkpoint.

    every: leave out what cannot be made, as for ``--to all``. Otherwise raises InputError that names it.
    """
    kind = kind_of(path)
    if kind is None:
        return {name: list(precisions) for name, precisions in wanted.items()}
    can = _MADE[kind]
    found = {name: [one for one in precisions if one in can.get(name, ())] for name, precisions in wanted.items()}
    refused = [f"{name} {one}" for name, precisions in wanted.items() for one in precisions if one not in found[name]]
    if refused and not every:
        possible = "; ".join(f"{name} {', '.join(precisions)}" for name, precisions in can.items())
        raise InputError(
            f"{', '.join(refused)} cannot be made from {_WHAT[kind]}: it needs the network in PyTorch. From {path} can "
            f"be made: {possible}."
        )
    return {name: precisions for name, precisions in found.items() if precisions}


def assert_classes(path: Path, shape: Sequence[int]) -> int:
    """Number of classes, from the shape of the output for one image. Raises CheckpointError unless it is (1, classes)
    with 2 to 20 classes."""
    if len(shape) != 2 or shape[0] != 1 or not 2 <= shape[1] <= LARGEST:
        raise CheckpointError(
            f"{path} returns an output of shape {tuple(shape)} for one image, expected (1, classes) with 2 to "
            f"{LARGEST} classes."
        )
    return int(shape[1])
