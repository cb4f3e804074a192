"""`ProgressBar`: training progress, as a bar in a terminal and as one line for each epoch."""

from __future__ import annotations

import logging
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from stageproof.train.engine.hooks import Step
from stageproof.train.runs.metrics_log import Epoch
from stageproof.train.terminal.rich_handler import progress, terminal

logger = logging.getLogger(__name__)


class ProgressBar:
    """Shows the steps of the running stage; use it as a context manager.

    quiet: show and log nothing; for all processes except rank 0.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: Progress | None = None
        self._task: TaskID | None = None
        self._epochs = 0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, stage: str, epochs: int, steps: int) -> None:
        """Start the bar of a stage with `epochs` × `steps` steps."""
        self._epochs = epochs
        console = None if self._quiet else terminal()
        if console is None:
            return
        if self._bars is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[figures]}"),
            )
            self._bars = progress(console, *columns, TimeRemainingColumn(compact=True), redraw=True)
            self._bars.start()
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(stage, total=epochs * steps, figures="")

    def step(self, step: Step) -> None:
        """Update the bar after a step."""
        if self._bars is None or self._task is None:
            return
        self._bars.update(
            self._task,
            description=f"{step.stage} {step.epoch}/{self._epochs}",
            completed=(step.epoch - 1) * step.steps + step.step,
            figures=f"loss {step.loss:.3f}  accuracy {step.accuracy:.1%}  {step.images_per_second:.0f} images/s",
        )

    def epoch(self, epoch: Epoch) -> None:
        """Log the metrics of a finished epoch."""
        if self._quiet:
            return
        logger.info(
            f"{epoch.stage} {epoch.epoch}/{self._epochs}  loss {epoch.loss:.3f}  accuracy {epoch.accuracy:.1%}  "
            f"validation {epoch.validation_accuracy:.1%}  {epoch.images_per_second:.0f} images/s"
        )
