"""The figures of a run as it goes: metrics.jsonl, and TensorBoard for those who want it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import InputError

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training slices gave."""

    stage: str
    epoch: int
    """From 1."""
    loss: float
    """Mean over the training slices, augmented, dropout on."""
    accuracy: float
    validation_loss: float
    """Cross-entropy, without class weights or smoothing."""
    validation_accuracy: float
    validation_balanced_accuracy: float
    validation_patient_accuracy: float | None
    """None, and in no file, where nobody knows the patients."""
    learning_rate: float
    """Of its last step."""
    images_per_second: float
    seconds: float


class Journal:
    """Writes each epoch of a run into its folder; nothing for a folder of None, which another process writes.

    past: epochs of before an interruption; what was written after them is taken back.
    """

    def __init__(self, folder: Path | None, past: Sequence[Epoch] = (), tensorboard: bool = False) -> None:
        self.folder, self.epochs = folder, list(past)
        self._board = _board(folder / "tensorboard", len(self.epochs)) if folder and tensorboard else None
        self._write()

    def add(self, epoch: Epoch) -> None:
        """Take in a finished epoch."""
        self.epochs.append(epoch)
        self._write()
        if self._board is not None:
            for name, value in asdict(epoch).items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{epoch.stage}/{name}", value, len(self.epochs))
            self._board.flush()

    def close(self) -> None:
        """Finish the files."""
        if self._board is not None:
            self._board.close()

    def _write(self) -> None:
        if self.folder is None:
            return
        # Whole and then renamed: a reader never meets half a line.
        new = self.folder / f"{METRICS}.writing"
        new.write_text("".join(json.dumps(_known(epoch)) + "\n" for epoch in self.epochs), encoding="utf-8")
        new.replace(self.folder / METRICS)


def _known(epoch: Epoch) -> dict[str, Any]:
    return {name: value for name, value in asdict(epoch).items() if value is not None}


def _board(folder: Path, past: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs a package: pip install 'stageproof[tensorboard]'.") from error
    return SummaryWriter(str(folder), purge_step=past + 1)
