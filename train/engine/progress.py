"""`ProgressBar`: training progress on stderr, as a rich bar in a terminal and as one line for each epoch elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from stageproof.runtime.text.escapes import drawable, line
from stageproof.train.engine.hooks import Step
from stageproof.train.runs.metrics_log import Epoch


@contextmanager
def bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left, in a terminal only; what is yielded is called after each of `total` steps.

    Elsewhere nothing is shown: the caller says what it does in one line before.
    """
    console = Console(file=drawable(sys.stderr))
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        task = bars.add_task(what, total=total)
        yield lambda: bars.advance(task)


class ProgressBar:
    """Shows the steps of the running stage; use it as a context manager.

    quiet: print nothing; for all processes except rank 0.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(file=drawable(sys.stderr), quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None
        self._epochs = 0

    def __enter__(self) -> ProgressBar:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self._console.print(line(text), highlight=False, markup=False, soft_wrap=True)

    def begin(self, stage: str, epochs: int, steps: int) -> None:
        """Start the bar of a stage with `epochs` × `steps` steps."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._epochs = epochs
        self._task = self._bars.add_task(stage, total=epochs * steps, figures="")

    def step(self, step: Step) -> None:
        """Update the bar after a step."""
        assert self._task is not None, "begin() must be called first"
        self._bars.update(
            self._task,
            description=f"{step.stage} {step.epoch}/{self._epochs}",
            completed=(step.epoch - 1) * step.steps + step.step,
            figures=f"loss {step.loss:.3f}  accuracy {step.accuracy:.1%}  {step.images_per_second:.0f} images/s",
        )

    def epoch(self, epoch: Epoch) -> None:
        """Print the metrics of a finished epoch."""
        self.say(
            f"{epoch.stage} {epoch.epoch}/{self._epochs}  loss {epoch.loss:.3f}  accuracy {epoch.accuracy:.1%}  "
            f"validation {epoch.validation_accuracy:.1%}  {epoch.images_per_second:.0f} images/s"
        )
