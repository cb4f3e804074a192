"""Reads weight files of PyTorch and safetensors: tensors and metadata. Pickles are read with weights_only=True."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.system.regular_files import open_regular
from stageproof.train.foreign.file_types import is_pickled, is_safetensors, refuse_stranger

UNWRAPPED = ("state_dict", "model_state_dict")
"""Keys under which a checkpoint may contain its state dict."""

_FORBIDDEN = re.compile(r"GLOBAL|[Uu]nsupported (global|class|operand)|[Tt]rying to|[Cc]an only|not allowed")
"""Matches errors of torch about pickles with other objects than tensors and plain containers."""
_COUNTER = "num_batches_tracked"
_HEAD = re.compile(r"(^|\.)(fc|classifier|head)(\.\d+)?\.weight$")


@dataclass(frozen=True)
class Weights:
    """The content of a weight file."""

    state: dict[str, torch.Tensor]
    """The state dict, without the prefix ``module.``."""
    beside: dict[str, Any]
    """The rest: other entries of the checkpoint, or the metadata (text) of a safetensors file."""


def read_weights(path: Path) -> Weights:
    """The content of a safetensors file or of a file of `torch.save`, regardless of the suffix.

    Files of torch.save are read with `weights_only=True`, which allows tensors, plain containers and NumPy numbers
    only. A state dict under the key ``state_dict`` or ``model_state_dict`` is unwrapped. The prefix ``module.`` of
    nn.DataParallel is removed.

    Raises CheckpointError for any other file, with its type if its first bytes show it.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file. Give a run folder, a .safetensors file, or a .pth state dict.")
    try:
        refuse_stranger(path)
        content, beside = _safetensors(path) if is_safetensors(path) else (_unpickled(path), {})
    except pickle.UnpicklingError as error:
        if not (is_pickled(path) and _FORBIDDEN.search(str(error))):
            raise CheckpointError(
                f"{path} cannot be read as weights: it is neither a safetensors file nor a file of torch.save, or it "
                "is truncated. Copy or download it again."
            ) from error
        what = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path} contains more than tensors and plain containers{f' ({what[1]})' if what else ''}, so it was not "
            "loaded: a pickle can run code. Save its state dict alone: torch.save(model.state_dict(), path)."
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # torch's unpickler can raise anything for a damaged file
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path} cannot be read as weights: {reason[0] if reason else type(error).__name__}. Copy or download it "
            "again."
        ) from error
    for key in UNWRAPPED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            beside = {name: value for name, value in content.items() if name != key}
            content = content[key]
            break
    if isinstance(content, dict) and any(isinstance(value, torch.Tensor) for value in content.values()):
        # Some checkpoints have metadata among the tensors; a state dict itself contains tensors only.
        beside |= {name: value for name, value in content.items() if isinstance(value, (dict, list, tuple, str))}
        content = {name: value for name, value in content.items() if name not in beside}
    tensors = isinstance(content, dict) and all(isinstance(value, torch.Tensor) for value in content.values())
    if not tensors or not content:
        raise CheckpointError(f"{path} contains {type(content).__name__}, expected a state dict of tensors.")
    return Weights({name.removeprefix("module."): tensor for name, tensor in content.items()}, beside)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict that `read_weights` returns."""
    return read_weights(path).state


def same_tensors(state: Mapping[str, torch.Tensor], other: Path) -> bool:
    """Whether the safetensors file `other` has the same names and tensors, ignoring num_batches_tracked of BatchNorm,
    which inference does not use. False for a file that cannot be read."""
    state = {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}
    try:
        with safe_open(other, "pt") as file:
            names = list(file.keys())
            if {name for name in names if not name.endswith(_COUNTER)} != set(state):
                return False
            smallest_first = sorted(state, key=lambda name: state[name].numel())
            return all(torch.equal(file.get_tensor(name), state[name].cpu()) for name in smallest_first)
    except (SafetensorError, OSError, RuntimeError):
        return False


def outputs(state: Mapping[str, torch.Tensor]) -> int | None:
    """Number of outputs: rows of the last matrix of the head. None if no matrix has the name of a head."""
    name = last_matrix(state)
    return len(state[name]) if name else None


def last_matrix(state: Mapping[str, torch.Tensor]) -> str | None:
    """Name of the last matrix of the head, with one row for each class. None if no matrix has the name of a head."""
    heads = [name for name in state if _HEAD.search(name) and state[name].ndim == 2]
    return max(heads, key=_by_number) if heads else None


def _by_number(name: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", name)]


def _safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        beside = dict(file.metadata() or {})
    return load_file(path), beside


def _unpickled(path: Path) -> Any:
    try:
        from numpy._core.multiarray import scalar
    except ImportError:  # NumPy before 2.0
        from numpy.core.multiarray import scalar  # type: ignore[no-redef,attr-defined,unused-ignore]
    numbers = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")]
    # Both names: pickles of NumPy 1 have numpy.core, those of NumPy 2 have numpy._core.
    named = [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar")]
    # Passed as an open file, because torch.load depends on the suffix of a path.
    with torch.serialization.safe_globals([*named, np.dtype, *numbers]), open_regular(path) as file:
        return torch.load(file, "cpu", weights_only=True)
