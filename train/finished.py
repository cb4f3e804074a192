"""`continued`: the options and the checkpoint of a run that is resumed, possibly with more epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.system.regular_files import read_text
from stageproof.train.config.extension import announce, extended
from stageproof.train.config.options import Options
from stageproof.train.config.saved_options import STAGES, finished_options, read_options
from stageproof.train.foreign.weight_files import read_state
from stageproof.train.runs.directory import WEIGHTS
from stageproof.train.runs.metrics_log import METRICS
from stageproof.train.runs.record import read_record
from stageproof.train.runs.unfinished import finished_name


def continued(
    options: Options, folder: Path, checkpoint: dict[str, Any] | None
) -> tuple[Options, dict[str, Any] | None]:
    """The options with what was extended, which is logged, and the checkpoint to start from; None for a new run.

    folder: of the unfinished run. checkpoint: its own, if it has one.

    Raises CheckpointError if the run cannot be extended.
    """
    if checkpoint is not None:
        began = Options(**read_options(folder))
        state = checkpoint["state"]
        new = extended(options, began, checkpoint["stage"], (state["epoch"], state["step"]) > (1, 0), "kept")
        stage = getattr(began.settings, STAGES[checkpoint["stage"]])
        stopped = bool(began.settings.patience and state["stale"] >= began.settings.patience)
        if len(new.extended) > len(began.extended) and stopped:
            raise CheckpointError(_early(finished_name(folder), state["epoch"] - 1, stage.epochs))
    elif options.extends is not None:
        began = finished_options(options.extends)
        checkpoint = checkpoint_of(options.extends, began)
        new = extended(options, began, checkpoint["stage"], True, "new")
    else:
        return options, None
    announce(new, len(began.extended))
    return new, checkpoint


def _early(run: Path, done: int, epochs: int) -> str:
    return (
        f"{run} stopped early, after epoch {done} of {epochs}: more epochs would not be trained. Start a new run with "
        "another --out and a larger --patience."
    )


def checkpoint_of(run: Path, began: Options) -> dict[str, Any]:
    """As `train.runs.checkpoints.read_checkpoint`, from the weights and metrics of `run`, whose options are `began`.

    There is no state of the optimizer: ``state`` is None. The next epoch follows from the history.

    Raises CheckpointError if the weights were changed, the metrics cannot be read, or the stage was stopped early, for
    which more epochs mean nothing.
    """
    record, path = read_record(run), run / METRICS
    if sha256_file(run / WEIGHTS) != record["weights_sha256"]:
        raise CheckpointError(f"{run / WEIGHTS} was changed after training. Start a new run with another --out.")
    try:
        lines = [json.loads(line) for line in read_text(path).splitlines()]
        history = [{"validation_patient_accuracy": None, **line} for line in lines]
        done = {name: sum(line["stage"] == name for line in history) for name in STAGES}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Start a new run with another --out.") from error
    at = max((index for index, name in enumerate(STAGES) if done[name]), default=0)
    name = STAGES[at]
    epochs = getattr(began.settings, name).epochs
    if done[name] < epochs:
        raise CheckpointError(_early(run, done[name], epochs))
    return {
        "model_state_dict": read_state(run / WEIGHTS),
        "stage": at,
        "state": None,
        "history": history,
        "digest": record["data"]["digest"],
        "start": record["start"],
    }
