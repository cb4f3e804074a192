"""`Progress`: images per second, time left and statuses so far, on standard error and in `OUT/log.jsonl`."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from stageproof.runtime.system.regular_files import append, private
from stageproof.runtime.text.escapes import drawable
from stageproof.serving.archive.engines import Lost
from stageproof.serving.archive.output.files import not_written
from stageproof.serving.archive.worker import Scored

logger = logging.getLogger(__name__)

FILE = "log.jsonl"
EVERY = 30.0
"""Seconds between lines where standard error is no terminal."""


class Log:
    """Appends JSON lines, each with the time, for people and the report. What is finished is what has a part."""

    def __init__(self, out: Path, clock: Callable[[], float] = time.time) -> None:
        """Raises ArchiveError if the file cannot be written."""
        self._path, self._clock = out / FILE, clock
        try:
            self._file = open(self._path, "ab", buffering=0, opener=private)  # noqa: SIM115
            if self._path.read_bytes()[-1:] not in (b"", b"\n"):
                self._file.write(b"\n")  # ends the line that a killed run left
        except OSError as error:
            raise not_written(self._path, error) from error

    def write(self, event: str, **facts: Any) -> None:
        """Append a line. Raises ArchiveError, with the file unchanged."""
        entry = {"time": round(self._clock(), 3), "event": event, **facts}
        try:
            append(self._file, json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise not_written(self._path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Progress:
    """Counts what is scored in this run and shows it."""

    def __init__(
        self,
        total: int,
        done: int,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """total: inputs of the archive. done: those that had rows before this run."""
        stream = sys.stderr if stream is None else stream
        self._total, self._before, self._clock = total, done, clock
        self._begun = self._shown = clock()
        self._now = 0
        self.statuses: Counter[str] = Counter()
        self._live = stream.isatty()
        self._stream = drawable(stream)

    def add(self, scored: Scored) -> None:
        """Count a finished shard."""
        self._now += scored.rows
        self.statuses.update(scored.statuses)
        now = self._clock()
        if self._live:
            self._stream.write(f"\r{self.line(now):<78}")
            self._stream.flush()
        elif now - self._shown >= EVERY:
            self._shown = now
            logger.info(self.line(now))

    def lost(self, lost: Lost) -> None:
        """Show that a worker was lost."""
        self.end_line()
        then = "another one scores it" if lost.again else "it is left out"
        logger.warning(f"a worker ended with shard {lost.shard} ({lost.worker}: {lost.reason}); {then}")

    def line(self, now: float) -> str:
        """``1200/5000 images, 45.1 images/s, 84 s left, ok 1100, rejected 100``."""
        speed = self._now / max(now - self._begun, 1e-9)
        done = self._before + self._now
        left = f", {_duration((self._total - done) / speed)} left" if speed else ""
        statuses = "".join(f", {name} {count}" for name, count in sorted(self.statuses.items()))
        return f"{done}/{self._total} images, {speed:.1f} images/s{left}{statuses}"

    def end_line(self) -> None:
        """End a line that is updated in place, before other text."""
        if self._live and self._now:
            self._stream.write("\n")
            self._stream.flush()


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
