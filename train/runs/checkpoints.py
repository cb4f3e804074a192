"""Checkpoints of a run in progress, in its folder `.NAME.partial`: written atomically, the one before it kept.

options.json             what the run was told, for --resume
checkpoint.pt            torch.save of tensors and plain containers (schema 1), read with weights_only=True:
                         model_state_dict, stage (index and what changes in it), history, data digest
checkpoint.previous.pt   the one before
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
WORTH = 20
"""After an epoch a checkpoint is worth its time when training has taken so many times as long since the last one."""


class Keeper:
    """Writes the checkpoints of one run. Nothing is written for a folder of None: another process does."""

    def __init__(self, folder: Path | None, minutes: float) -> None:
        self.folder, self.seconds = folder, 60 * minutes
        self._written, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether the last one is older than allowed."""
        return self.folder is not None and time.monotonic() - self._written >= self.seconds

    def worth(self) -> bool:
        """Whether another takes little of the time since the last one; the first one always is."""
        return time.monotonic() - self._written >= WORTH * self._took

    def last(self) -> str:
        """The last checkpoint's path, or ``none``."""
        return str(self.folder / NEWEST) if self.folder and (self.folder / NEWEST).exists() else "none"

    def write(self, content: dict[str, Any]) -> None:
        """Write a checkpoint. Raises TrainingError when it cannot be written; the one before it is intact then."""
        if self.folder is None:
            return
        began = time.monotonic()
        new, newest = self.folder / f"{NEWEST}.writing", self.folder / NEWEST
        try:
            with new.open("wb") as file:
                torch.save({"schema": SCHEMA, **content}, file)
                file.flush()
                os.fsync(file.fileno())  # a name must not appear before what it names
            if newest.exists():
                newest.replace(self.folder / PREVIOUS)
            new.replace(newest)
        except (OSError, RuntimeError) as error:
            with suppress(OSError):
                new.unlink()
            raise TrainingError(
                f"A checkpoint cannot be written to {self.folder}: {error}. Last good checkpoint: {self.last()}. Make "
                "room or give another --out, and go on with --resume."
            ) from error
        self._written = time.monotonic()
        self._took = self._written - began


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """The newest checkpoint in `folder`. Raises CheckpointError when it is damaged, or of another schema."""
    path = folder / NEWEST if (folder / NEWEST).exists() else folder / PREVIOUS
    older = folder / PREVIOUS
    try:
        content = torch.load(path, "cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, ValueError, EOFError, KeyError) as error:
        instead = (
            f"Delete it, and --resume goes on from {older.name}."
            if path != older and older.exists()
            else "There is no other: delete the folder and train again."
        )
        raise CheckpointError(f"{path} is damaged: {str(error).splitlines()[0]}. {instead}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} has schema {found!r}, this version reads {SCHEMA}. Train again, or upgrade.")
    return content
