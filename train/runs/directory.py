"""Run directories and weight files: `new_run`, `save_weights` and `load_weights`.

A run is written to `.NAME.partial` and renamed to NAME when it is finished. Content of a run directory (schema 1):

    model.safetensors   the weights
    run.json            recipe, configuration, versions, data, labels, input, split, metrics
    metrics.jsonl       one line an epoch
    split.csv           every slice: name, class, patient, side
    unreadable.json     files left out, with the reason
    curves.png          loss and accuracy by epoch
    confusion.png       confusion matrix of the validation slices
    index.html          links to all of these, and to evaluations
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.system.work_folders import hold, make_private, release, sweep, unmark
from stageproof.runtime.text.hints import command
from stageproof.train.networks import load_state
from stageproof.train.runs.unfinished import NEWEST, OPTIONS, PREVIOUS, has_checkpoint, partial_folder

WEIGHTS = "model.safetensors"


@contextmanager
def new_run(path: Path, resume: bool = False) -> Iterator[Path]:
    """Context manager: a hidden folder beside `path` to write a run into. It is renamed to `path` if no error occurs.

    After an error the folder is removed, with the parent folders created for it, unless it contains a checkpoint to
    resume from.

    resume: continue in the folder of an interrupted run.

    Raises CheckpointError if `path` exists already or cannot be created, or if an interrupted run would be overwritten.
    """
    partial = partial_folder(path)
    if path.exists():
        raise CheckpointError(f"{path} exists already. Give another --out; nothing was written.")
    if has_checkpoint(partial) and not resume:
        raise CheckpointError(
            f"{partial} contains an interrupted run. Nothing was written. Delete it, give another --out, or resume it: "
            f"{command('train', '--resume', '--out', path)}"
        )
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, ".*.partial", spare=has_checkpoint)
        if partial.exists() and not has_checkpoint(partial):
            shutil.rmtree(partial)
        partial.mkdir(mode=0o700, exist_ok=True)
        holder = hold(partial)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be created: {error}. Give another --out.") from error
    try:
        yield partial
        make_private(partial)
        partial.rename(path)
        unmark(path)
        for needless in (NEWEST, PREVIOUS, OPTIONS):
            (path / needless).unlink(missing_ok=True)
    except BaseException:
        if not has_checkpoint(partial):
            shutil.rmtree(partial, ignore_errors=True)
            with suppress(OSError):  # not empty: another run has started there
                for folder in made:
                    folder.rmdir()
        raise
    finally:
        release(holder)


def save_weights(model: nn.Module, folder: Path, labels: Sequence[str]) -> None:
    """Write the state dict as `model.safetensors` in `folder`, with the class order in its metadata, so that the
    meaning of the outputs can be read from a copy of the file."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = save(state, {"format": "pt", "labels": json.dumps(list(labels))})
    (folder / WEIGHTS).write_bytes(with_ordered_header(content))


def with_ordered_header(content: bytes) -> bytes:
    """The safetensors file with sorted metadata, so that equal weights have equal digests: safetensors writes them in
    any order.

    Layout: the header's length as 8 bytes, little-endian; the header, JSON padded with spaces; the tensors.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def load_weights(
    model: nn.Module, state: Mapping[str, torch.Tensor], where: Path | str, advice: str = "Name its --architecture."
) -> None:
    """Load `state` into `model`.

    Raises CheckpointError for missing, unknown, differently shaped or non-finite tensors, and for those without dense
    floating-point values; the message lists the first three of each kind. advice: its last sentence.
    """
    own = model.state_dict()
    # Files of old PyTorch versions lack num_batches_tracked of BatchNorm, which inference does not use.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    extra = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or extra or shapes:
        parts = (("lacks", missing), ("has unknown", extra), ("has other shapes:", shapes))
        what = "; it ".join(f"{verb} {', '.join(names[:3])} ({len(names)} in all)" for verb, names in parts if names)
        raise CheckpointError(f"{where} does not fit {type(model).__name__}: it {what}. {advice}")
    for name, tensor in state.items():
        if own[name].is_floating_point():
            _assert_floats(name, tensor, where)
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"{where}: {broken[0]} contains values that are not finite: training diverged.")
    load_state(model, state, strict=False)


def _assert_floats(name: str, tensor: torch.Tensor, where: Path | str) -> None:
    """Raise CheckpointError for a tensor that cannot be copied into a layer as it is meant, such as quantised weights,
    whose scale is elsewhere."""
    if tensor.is_floating_point() and not (tensor.is_quantized or tensor.is_sparse or tensor.is_meta):
        return
    layout = "" if tensor.layout == torch.strided else f"{tensor.layout}, "
    kind = "no values" if tensor.is_meta else f"{layout}{tensor.dtype}".replace("torch.", "")
    raise CheckpointError(
        f"{where}: {name} is a tensor of {kind}, expected dense floating-point values, such as float32. Save the "
        "weights before quantisation or conversion."
    )
