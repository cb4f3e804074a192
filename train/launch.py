"""How many processes train: this one, those that torchrun started, or one a device, started here."""

from __future__ import annotations

import logging
import os
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from runtime import errors
from runtime.errors import InputError, TrainingError
from train.compute import choose_compute
from train.loop import Interrupted
from train.options import Options
from train.resume import has_checkpoint, partial_folder
from train.run import default_out, train

STOPPING_SECONDS = 600
"""How long processes may take to finish a step and write a checkpoint after SIGTERM."""


def launch(options: Options) -> tuple[Path, dict[str, Any]]:
    """Train, on every device asked for; the run directory and its record.

    Raises what `train` raises, from whichever process failed first; a failure that is not one of ours is a
    TrainingError that carries its traceback.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return train(options)
    options = replace(options, out=options.out or default_out(options))
    count = _processes(options)
    if count == 1:
        try:
            return train(options)
        except Interrupted as stopped:
            raise Interrupted(str(options.out)) from stopped
    return _launch(options, count)


def is_leader() -> bool:
    """Whether this process speaks for the run."""
    return os.environ.get("RANK", "0") == "0"


def _processes(options: Options) -> int:
    choose_compute(options.device, options.precision)
    gpus = torch.cuda.device_count() if options.device != "cpu" and torch.cuda.is_available() else 0
    count = options.devices or max(1, gpus)
    if gpus and count > gpus:
        raise InputError(f"--devices is {count}, torch sees {gpus} here. Ask for at most {gpus}, or use --device cpu.")
    if 2 * count > options.settings.batch_size:
        raise InputError(
            f"--batch-size is {options.settings.batch_size} for {count} devices together; each needs two slices. Raise "
            "it, or ask for fewer --devices."
        )
    return count


def _launch(options: Options, count: int) -> tuple[Path, dict[str, Any]]:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The launcher logs every failure at length; it is told once, below.
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    logging.getLogger("torch.multiprocessing").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        shutdown_timeout=STOPPING_SECONDS,
    )
    out = options.out
    assert out is not None, "the processes must agree on one"
    try:
        answers = elastic_launch(config, train)(options)
    except SignalException as error:
        if has_checkpoint(partial_folder(out)):
            raise Interrupted(str(out)) from error
        raise KeyboardInterrupt from error
    except ChildFailedError as error:
        told = [_as_ours(rank, failure, out) for rank, failure in _by_time(error)]
        # A process that waits for one that fails loses its connection, and may be the first to be noticed.
        raise next((one for one in told if type(one) is not TrainingError), told[0]) from error
    return answers[0]


def _by_time(error: Any) -> list[tuple[int, Any]]:
    """(rank, failure) of every process that failed, the first to fail first."""
    return sorted(error.failures.items(), key=lambda item: item[1].timestamp)


def _as_ours(rank: int, failure: Any, out: Path) -> Exception:
    """What ended process `rank`, from the launcher's account of it."""
    told = failure.error_file_data if isinstance(failure.error_file_data, dict) else {}
    message = told.get("message", failure.message)
    if not isinstance(message, dict):
        return TrainingError(f"Process {rank} died: {message}")
    text = str(message.get("message", message))
    name, _, rest = text.partition(": ")
    if name == "Interrupted":  # the processes were told to stop, and not by way of the launcher
        return Interrupted(str(out))
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, errors.NeuroStageError):
        return kind(rest)
    trace = message.get("extraInfo", {}).get("py_callstack", "")
    return TrainingError(f"Process {rank} died: {text}\n{trace}".rstrip())
