"""Writes and reads the checkpoints of a run in progress, in its folder `.NAME.partial`. Writes are atomic.

options.json             options of the run, for --resume
checkpoint.pt            torch.save of tensors and plain containers (schema 1), read with weights_only=True:
                         model_state_dict, stage (index), state of the stage, history, data digest
checkpoint.previous.pt   the checkpoint before it
"""

from __future__ import annotations

import os
import pickle
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from stageproof.runtime.errors import CheckpointError, TrainingError
from stageproof.train.runs.unfinished import NEWEST, PREVIOUS

SCHEMA = 1
MINIMUM_RATIO = 20
"""A checkpoint is written after an epoch if the time since the last one is at least this many times its write time."""


class CheckpointWriter:
    """Writes the checkpoints of one run.

    folder: of the run; None in all processes except rank 0: nothing is written. minutes: maximum time between two.
    """

    def __init__(self, folder: Path | None, minutes: float) -> None:
        self.folder, self.seconds = folder, 60 * minutes
        self._written, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether the last checkpoint is older than allowed."""
        return self.folder is not None and time.monotonic() - self._written >= self.seconds

    def worthwhile(self) -> bool:
        """Whether writing takes little of the time since the last checkpoint; always True for the first."""
        return time.monotonic() - self._written >= MINIMUM_RATIO * self._took

    def last(self) -> str:
        """Path of the last checkpoint, or ``none``."""
        return str(self.folder / NEWEST) if self.folder and (self.folder / NEWEST).exists() else "none"

    def write(self, content: dict[str, Any]) -> None:
        """Write a checkpoint. Raises TrainingError if that fails; the checkpoint before it is then intact."""
        if self.folder is None:
            return
        began = time.monotonic()
        new, newest = self.folder / f"{NEWEST}.writing", self.folder / NEWEST
        try:
            with new.open("wb") as file:
                torch.save({"schema": SCHEMA, **content}, file)
                file.flush()
                os.fsync(file.fileno())  # the rename must not become visible before the content
            if newest.exists():
                newest.replace(self.folder / PREVIOUS)
            new.replace(newest)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                new.unlink()
            raise TrainingError(
                f"A checkpoint cannot be written to {self.folder}: {error}. Last checkpoint: {self.last()}. Free disk "
                "space, then continue with --resume."
            ) from error
        self._written = time.monotonic()
        self._took = self._written - began


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest checkpoint in `folder`. Raises CheckpointError if it is damaged or has another schema."""
    path = folder / NEWEST if (folder / NEWEST).exists() else folder / PREVIOUS
    older = folder / PREVIOUS
    try:
        content = torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        instead = (
            f"Delete it; --resume then continues from {older.name}."
            if path != older and older.exists()
            else "There is no other checkpoint: delete the folder and train again."
        )
        raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}. {instead}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} has schema {found!r}, this version reads {SCHEMA}. Train again, or upgrade.")
    return content
