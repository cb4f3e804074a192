"""`MetricsLog`: writes the metrics of each epoch to metrics.jsonl and, on request, for TensorBoard."""

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
    """Metrics of one epoch."""

    stage: str
    epoch: int
    """From 1."""
    loss: float
    """Mean training loss, with augmentation and dropout."""
    accuracy: float
    """Of training slices; with MixUp, a prediction counts by the share of its class in the mixture."""
    validation_loss: float
    """Cross-entropy without class weights and label smoothing."""
    validation_accuracy: float
    validation_balanced_accuracy: float
    validation_patient_accuracy: float | None
    """None, and not written, if patients are unknown."""
    learning_rate: float
    """Learning rate of the last step."""
    images_per_second: float
    seconds: float


class MetricsLog:
    """Writes the metrics of each epoch.

    folder: of the run; None in all processes except rank 0: nothing is written.
    past: epochs before an interruption; later lines of the file are removed.
    """

    def __init__(self, folder: Path | None, past: Sequence[Epoch] = (), tensorboard: bool = False) -> None:
        self.folder, self.epochs = folder, list(past)
        self._board = _board(folder / "tensorboard", len(self.epochs)) if folder and tensorboard else None
        self._write()

    def add(self, epoch: Epoch) -> None:
        """Add a finished epoch."""
        self.epochs.append(epoch)
        self._write()
        if self._board is not None:
            for name, value in asdict(epoch).items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{epoch.stage}/{name}", value, len(self.epochs))
            self._board.flush()

    def close(self) -> None:
        """Close the TensorBoard writer."""
        if self._board is not None:
            self._board.close()

    def _write(self) -> None:
        if self.folder is None:
            return
        # Written to another name and renamed, so that nobody reads an incomplete line.
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
