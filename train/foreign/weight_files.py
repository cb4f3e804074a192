"""Reads weight files of PyTorch and safetensors: tensors and metadata. Pickles are read with weights_only=True."""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from stageproof.runtime.errors import CheckpointError
from stageproof.train.foreign.bookkeeping import bookkeeping
from stageproof.train.foreign.file_types import is_pickled, is_safetensors, refuse_stranger
from stageproof.train.foreign.unpickling import classes_in, unpickled

_UNWRAPPED = ("state_dict", "model_state_dict")
"""Keys of the state dict in the checkpoints of most programs, and in those of runs."""
_DEPTH = 3
"""Depth to which a checkpoint is searched for state dicts."""
_FORBIDDEN = re.compile(r"GLOBAL|[Uu]nsupported (global|class)|[Tt]rying to|[Cc]an only|not allowed")
"""Matches errors of torch about pickles with other objects than tensors and plain containers."""
_PROTOCOL = "Unsupported operand"
_COUNTER = "num_batches_tracked"
_HEAD = re.compile(r"(^|\.)(fc|classifier|head)(\.\d+)?\.weight$")


@dataclass(frozen=True)
class Weights:
    """A state dict and what is beside it."""

    state: dict[str, torch.Tensor]
    beside: dict[str, Any]
    """The rest: other entries of the checkpoint, or the metadata (text) of a safetensors file."""


@dataclass(frozen=True)
class Contents:
    """The content of a weight file."""

    path: Path
    entries: dict[str, dict[str, torch.Tensor]]
    """Key → tensors, for every mapping with tensors; nested keys are joined by dots, "" is the file itself."""
    beside: dict[str, Any]
    """All entries that are no tensors and do not consist of tensors only."""


def read_contents(path: Path) -> Contents:
    """The content of a safetensors file or of a file of `torch.save`, regardless of the suffix.

    Files of torch.save are read with `weights_only=True` and the classes of `train.foreign.unpickling`.

    Raises CheckpointError for any other file, with its type if its first bytes show it, and for one without tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is not a file. Give a run folder, a .safetensors file, or a .pth state dict.")
    try:
        refuse_stranger(path)
        if is_safetensors(path):
            return Contents(path, {"": load_file(path)}, _metadata(path))
        content = unpickled(path)
    except pickle.UnpicklingError as error:
        raise CheckpointError(_not_read(path, str(error))) from error
    except CheckpointError:
        raise
    except Exception as error:  # torch's unpickler can raise anything for a damaged file
        reason = str(error).strip().splitlines()
        raise CheckpointError(
            f"{path} cannot be read as weights: {reason[0] if reason else type(error).__name__}. Copy or download it "
            "again."
        ) from error
    entries: dict[str, dict[str, torch.Tensor]] = {}
    beside = _separated(content, "", entries, _DEPTH) if isinstance(content, dict) else {}
    if not entries:
        raise CheckpointError(f"{path} contains {type(content).__name__}, expected a state dict of tensors.")
    return Contents(path, entries, beside)


def read_weights(path: Path) -> Weights:
    """The state dict of a run, or of a file with one state dict, without the prefix ``module.`` of nn.DataParallel.

    Raises CheckpointError as `read_contents`, and for several state dicts. `train.foreign.identification` selects by
    the network instead.
    """
    found = read_contents(path)
    state = sole_state(found)
    if state is None:
        raise CheckpointError(f"{path} contains several state dicts: {', '.join(found.entries)}. Save one alone.")
    return Weights({name.removeprefix("module."): tensor for name, tensor in state.items()}, found.beside)


def sole_state(found: Contents) -> dict[str, torch.Tensor] | None:
    """The state dict of a file: the one with the key ``state_dict`` or ``model_state_dict``, else the largest. None if
    another one has at least half as many tensors, and may be meant."""
    keys = [key for key in _UNWRAPPED if key in found.entries] or sorted(
        found.entries, key=lambda key: -len(found.entries[key])
    )
    state = found.entries[keys[0]]
    rivals = [key for key in found.entries if key != keys[0] and 2 * len(found.entries[key]) >= len(state)]
    return None if rivals else state


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


def without_prefix(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state dict without the dotted prefix that all of its names have, such as ``module.`` or ``model.net.``."""
    names = [name.split(".")[:-1] for name in state]
    common = 0
    while names and all(len(parts) > common and parts[common] == names[0][common] for parts in names):
        common += 1
    return {name.split(".", common)[-1]: tensor for name, tensor in state.items()}


def of_network(state: Mapping[str, torch.Tensor], names: Collection[str], path: Path) -> dict[str, torch.Tensor]:
    """The tensors under the one prefix under which all `names` are there, without it and without what belongs to the
    training (`train.foreign.bookkeeping`); all of them, unchanged, if there is no such prefix.

    names: of the network's tensors, without its head. Raises CheckpointError if there are several such prefixes.
    """
    wanted = [name for name in names if not name.endswith(_COUNTER)]
    starts = [name.removesuffix(wanted[0]) for name in state if name.endswith(wanted[0])] if wanted else []
    prefixes = [one for one in starts if all(f"{one}{name}" in state for name in wanted)]
    if len(prefixes) > 1:
        raise CheckpointError(
            f"{path} contains several state dicts of the network, under {', '.join(map(repr, prefixes))}. Save one "
            "alone."
        )
    if not prefixes:
        return dict(state)
    (prefix,) = prefixes
    found, _ = bookkeeping(name for name in state if name.removeprefix(prefix) not in names)
    dropped = {name for listed in found.values() for name in listed}
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name not in dropped}


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


def _metadata(path: Path) -> dict[str, Any]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata() or {})


def _separated(
    content: Mapping[Any, Any], key: str, entries: dict[str, dict[str, torch.Tensor]], depth: int
) -> dict[str, Any]:
    """`content` without its tensors and without mappings that consist of tensors only; these are added to `entries`."""
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if tensors and all(isinstance(name, str) for name in tensors):
        entries[key] = tensors
    rest = {name: value for name, value in content.items() if name not in tensors}
    for name, value in list(rest.items()):
        if isinstance(value, Mapping) and isinstance(name, str) and depth > 1:
            before = len(entries)
            inner = _separated(value, f"{key}.{name}" if key else name, entries, depth - 1)
            if len(entries) > before:
                rest = {**rest, name: inner} if inner else {one: rest[one] for one in rest if one != name}
    return rest


def _not_read(path: Path, reason: str) -> str:
    """The message for a pickle that was not loaded. reason: the error of torch."""
    if not is_pickled(path) or (_PROTOCOL not in reason and not _FORBIDDEN.search(reason)):
        return (
            f"{path} cannot be read as weights: it is neither a safetensors file nor a file of torch.save, or it is "
            "truncated. Copy or download it again."
        )
    save = "torch.save(model.state_dict(), 'weights.pth')"
    classes, is_module = classes_in(path)
    if is_module:
        what = f" of the class {classes[0]}" if classes else ""
        return (
            f"{path} contains a whole network{what}, saved with torch.save(model). It was not loaded: a pickle can run "
            f"code, and needs the class. Save its state dict where the class is: model = torch.load({str(path)!r}, "
            f"weights_only=False); {save}"
        )
    if _PROTOCOL in reason and not classes:
        return (
            f"{path} was saved with a pickle protocol that torch does not read safely. Save it again where it was "
            f"made, with the default protocol: {save}"
        )
    named = re.search(r"GLOBAL (.+?) (was|is) not", reason)
    what = ", ".join(classes[:5]) or (named[1] if named else "")
    return (
        f"{path} contains more than tensors and plain containers{f' ({what})' if what else ''}, so it was not "
        f"loaded: a pickle can run code. Save its state dict alone: {save}."
    )
