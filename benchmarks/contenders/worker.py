"""A contender in a process of its own: engines do not share thread pools, and memory and loading are its own.

The parent takes turns between the processes; one that waits uses no CPU. Clocks run in the process, around the
question alone: what the pipe costs is nobody's time.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from stageproof.benchmarks.machine.memory import peak_rss
from stageproof.export.engines.idle import PAUSE_S, wait_until_idle
from stageproof.runtime.errors import BackendError, StageproofError


class Loaded(Protocol):
    """What the `load` of a contender's module returns."""

    stages: dict[str, float]
    """Milliseconds of the stages of the last `answer`."""

    def answer(self, image: bytes) -> Sequence[float] | None:
        """Probabilities in the order of the model's labels; None where there is no answer."""
        ...

    def answer_all(self, images: Sequence[bytes]) -> list[Sequence[float] | None]:
        """As `answer`, of several images as one batch."""
        ...


@dataclass(frozen=True)
class Contender:
    """Who is measured: `module.load(**arguments)` makes it, in its own process."""

    name: str
    kind: str
    """As in `benchmarks.records.schema.Row`."""
    backend: str
    precision: str
    threads: int
    settings: str
    module: str
    arguments: dict[str, Any] = field(default_factory=dict)
    file_bytes: int | None = None
    batches: tuple[int, ...] = (1, 4, 8, 16, 32)
    """Batch sizes to choose from for throughput."""
    decides: bool = True
    """Whether its decisions are to be those of the bundle's model: it is given images of that model's size."""


class Worker:
    """The parent's end of a contender's process. `with Worker(…) as worker:` ends the process."""

    def __init__(self, contender: Contender, images: Sequence[bytes], log: Path) -> None:
        """Start it, and wait for its first answer. Raises BackendError when it cannot be loaded."""
        self.contender = contender
        self._log = log
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        arguments = (contender.module, contender.arguments, log, theirs)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        begun = time.perf_counter()
        self._process.start()
        theirs.close()
        try:
            self.load_s: float = self._reply()
            self._pipe.send(("take", (list(images),)))
            self._reply()
            self.ask("first")
        except BaseException:
            self.close()
            raise
        self.first_answer_s = time.perf_counter() - begun

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method of `_Desk` returns. Raises BackendError when the contender fails or its process dies."""
        self._pipe.send((method, arguments))
        return self._reply()

    def begin(self, method: str, *arguments: Any) -> None:
        """As `ask`, without waiting: `end` does."""
        self._pipe.send((method, arguments))

    def end(self) -> Any:
        """What the method begun returns."""
        return self._reply()

    def settle(self) -> None:
        """Wait until the process uses no CPU: thread pools spin for up to 50 ms after an answer, at others' cost."""
        # Linux's clock of another process's CPU time, as clock_getcpuclockid(3) makes it.
        clock = ((~(self._process.pid or 0)) << 3) | 2
        try:
            wait_until_idle(lambda: time.clock_gettime(clock))
        except (AttributeError, OSError):
            time.sleep(PAUSE_S * 20)

    def close(self) -> None:
        """End the process. It has nothing to put away, and some engines take seconds to do so."""
        self._pipe.close()
        self._process.terminate()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _reply(self) -> Any:
        try:
            worked, value = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(timeout=5)
            raise BackendError(
                f"The process of {self.contender.name} ended with {self._process.exitcode}: {_last_line(self._log)}"
            ) from None
        if not worked:
            raise BackendError(f"{self.contender.name} failed: {value}")
        return value


class _Desk:
    """What a worker process can be asked."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.images: list[bytes] = []

    def take(self, images: list[bytes]) -> None:
        """Keep the images that later questions name by position."""
        self.images = images

    def first(self) -> None:
        """Answer one image."""
        self.loaded.answer(self.images[0])

    def burst(self, first: int, count: int) -> tuple[list[float], list[dict[str, float]]]:
        """(milliseconds, stages) of `count` images one after another, from position `first` on.

        The image before them is answered first and not counted: others used the caches since the last turn.
        """
        self.loaded.answer(self._image(first - 1))
        times, stages = [], []
        for position in range(first, first + count):
            image = self._image(position)
            begun = time.perf_counter()
            self.loaded.answer(image)
            times.append((time.perf_counter() - begun) * 1e3)
            stages.append(self.loaded.stages)
        return times, stages

    def question(self, first: int, count: int) -> float:
        """Milliseconds of one question of `count` images, after one that is not counted."""
        self.loaded.answer_all([self._image(first - 1 - offset) for offset in range(count)])
        images = [self._image(position) for position in range(first, first + count)]
        begun = time.perf_counter()
        self.loaded.answer_all(images)
        return (time.perf_counter() - begun) * 1e3

    def throughput(self, count: int, batch: int) -> float:
        """Seconds for `count` images in batches of `batch`, as fast as the contender takes them."""
        images = [self._image(position) for position in range(count)]
        stream = getattr(self.loaded, "stream", None)
        begun = time.perf_counter()
        if stream is not None:
            stream(images, batch)
        else:
            for start in range(0, count, batch):
                self.loaded.answer_all(images[start : start + batch])
        return time.perf_counter() - begun

    def decisions(self) -> list[int | None]:
        """Position of the highest probability for every image taken; None where there is no answer."""
        answers = [self.loaded.answer(image) for image in self.images]
        return [None if not answer else max(range(len(answer)), key=answer.__getitem__) for answer in answers]

    def call(self, name: str, *arguments: Any) -> Any:
        """`name(images, *arguments)` of the contender itself, for what only some of them can do."""
        return getattr(self.loaded, name)(self.images, *arguments)

    def peak_rss(self) -> int:
        """Bytes."""
        return peak_rss()

    def _image(self, position: int) -> bytes:
        return self.images[position % len(self.images)]


def _serve(module: str, arguments: dict[str, Any], log: Path, pipe: Connection) -> None:
    begun = time.perf_counter()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(descriptor, 1)  # engines write through C, not through sys.stdout
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)
    try:
        desk = _Desk(importlib.import_module(module).load(**arguments))
        pipe.send((True, time.perf_counter() - begun))
        while True:
            method, values = pipe.recv()
            pipe.send((True, getattr(desk, method)(*values)))
    except (EOFError, BrokenPipeError):
        return  # the parent has ended, or needs this no longer
    except StageproofError as error:
        pipe.send((False, str(error)))
    except Exception as error:  # noqa: BLE001  engines and compilers raise each their own
        pipe.send((False, f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"))


def _last_line(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
    return text.splitlines()[-1][-300:] if text else "it left no message"
