"""`launch`: trains in this process, in those that torchrun started, or in one new process for each device."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from stageproof.runtime import errors
from stageproof.runtime.errors import InputError, TrainingError
from stageproof.runtime.system.work_folders import work_folder
from stageproof.train.config.options import Options
from stageproof.train.distributed.rendezvous import FOLDER, is_launched, is_torchrun, loopback
from stageproof.train.distributed.supervisor import Failure, Stopped, run_processes
from stageproof.train.engine.device import choose_compute
from stageproof.train.engine.loop import Interrupted
from stageproof.train.run import default_out, train
from stageproof.train.runs.unfinished import has_checkpoint, partial_folder


def launch(options: Options) -> tuple[Path, dict[str, Any]]:
    """Train on the requested devices; returns the run directory and the content of its `run.json`.

    Raises the exception of the process that failed first, as `train` does; an exception that is not a StageproofError
    becomes a TrainingError with its traceback.
    """
    if is_torchrun():
        return train(options)
    assert not is_launched(), "a process of a run cannot start another run"
    options = replace(options, out=options.out or default_out(options))
    count = _processes(options)
    if count == 1:
        try:
            return train(options)
        except Interrupted as stopped:
            raise Interrupted(str(options.out)) from stopped
    return _launch(options, count)


def is_leader() -> bool:
    """Whether this process prints and writes: all but the processes of torchrun whose rank is not 0."""
    return not is_torchrun() or os.environ.get("RANK", "0") == "0"


def _processes(options: Options) -> int:
    choose_compute(options.device, options.precision)
    gpus = torch.cuda.device_count() if options.device != "cpu" and torch.cuda.is_available() else 0
    count = options.devices or max(1, gpus)
    if gpus and count > gpus:
        raise InputError(f"--devices is {count}, but torch finds {gpus} GPUs. Use --devices {gpus}, or --device cpu.")
    if 2 * count > options.settings.batch_size:
        raise InputError(
            f"--batch-size is {options.settings.batch_size} for {count} devices; each device needs at least 2 slices. "
            "Raise --batch-size, or lower --devices."
        )
    return count


def _launch(options: Options, count: int) -> tuple[Path, dict[str, Any]]:
    out = options.out
    assert out is not None, "all processes need the same output path"
    loopback()
    try:
        with work_folder() as folder:
            return run_processes(train, (options,), count, {FOLDER: str(folder)})
    except Stopped as stopped:
        if has_checkpoint(partial_folder(out)):
            raise Interrupted(str(out)) from stopped
        raise KeyboardInterrupt from stopped
    except Failure as failure:
        raise _as_stageproof_error(failure, out) from failure
    except OSError as error:
        raise TrainingError(
            f"{count} processes could not be started: {error}. Free space in the temporary folder, or set TMPDIR to "
            "another one."
        ) from error


def _as_stageproof_error(failure: Failure, out: Path) -> Exception:
    """The exception of the process that failed first, as Interrupted or a StageproofError."""
    if failure.kind == Interrupted.__name__:  # a signal reached the processes directly, not through the launcher
        return Interrupted(str(out))
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, errors.StageproofError):
        return kind(failure.message)
    message = f"{failure.kind}: {failure.message}" if failure.kind else failure.message
    return TrainingError(f"Process {failure.rank} failed: {message}\n{failure.trace}".rstrip())
