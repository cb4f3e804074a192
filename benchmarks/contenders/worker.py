"""Runs each contender in a separate process, so that thread pools, memory and load time are its own.

The parent alternates between the processes; a waiting process uses no CPU. Times are measured in the process, so they
do not include the communication with the parent.
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
    """Protocol of the object returned by `load` of a contender's module."""

    stages: dict[str, float]
    """Time of each stage of the last `answer`, in milliseconds."""

    def answer(self, image: bytes) -> Sequence[float] | None:
        """Probabilities in the order of the model's labels; None without a prediction."""
        ...

    def answer_all(self, images: Sequence[bytes]) -> list[Sequence[float] | None]:
        """As `answer`, for several images in one batch."""
        ...


@dataclass(frozen=True)
class Contender:
    """Description of a contender; `module.load(**arguments)` creates it in its own process."""

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
    """Batch sizes to try for throughput."""
    comparable: bool = True
    """Whether its predictions are compared with the reference's; False for another input size."""


class Worker:
    """The parent's handle of a contender's process; a context manager that ends the process."""

    def __init__(self, contender: Contender, images: Sequence[bytes], log: Path) -> None:
        """Start the process and wait for its first prediction. Raises BackendError if it cannot be loaded."""
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
            self._pipe.send(("set_images", (list(images),)))
            self._reply()
            self.request("first_answer")
        except BaseException:
            self.close()
            raise
        self.first_answer_s = time.perf_counter() - begun

    def request(self, method: str, *arguments: Any) -> Any:
        """The result of a method of `WorkerServer`. Raises BackendError if the contender fails or its process dies."""
        self._pipe.send((method, arguments))
        return self._reply()

    def send(self, method: str, *arguments: Any) -> None:
        """Start a request without waiting for its result; `receive` returns it."""
        self._pipe.send((method, arguments))

    def receive(self) -> Any:
        """The result of the request started with `send`. Raises what `request` raises."""
        return self._reply()

    def wait_until_idle(self) -> None:
        """Wait until the process uses no CPU: its thread pools busy-wait for up to 50 ms after an inference."""
        # Linux's clock id for another process's CPU time, computed as clock_getcpuclockid(3) does.
        clock = ((~(self._process.pid or 0)) << 3) | 2
        try:
            wait_until_idle(lambda: time.clock_gettime(clock))
        except (AttributeError, OSError):
            time.sleep(PAUSE_S * 20)

    def close(self) -> None:
        """Terminate the process. It has nothing to save, and some engines take seconds to shut down."""
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


class WorkerServer:
    """The requests that a worker process handles."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.images: list[bytes] = []

    def set_images(self, images: list[bytes]) -> None:
        """Set the images, which later requests refer to by position."""
        self.images = images

    def first_answer(self) -> None:
        """Run one image."""
        self.loaded.answer(self.images[0])

    def burst(self, first: int, count: int) -> tuple[list[float], list[dict[str, float]]]:
        """(times in milliseconds, stages) of `count` images run one after another, from position `first`.

        One untimed image runs before them, since other processes have used the CPU caches.
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

    def query(self, first: int, count: int) -> float:
        """Time of one query of `count` images, in milliseconds, after one untimed query."""
        self.loaded.answer_all([self._image(first - 1 - offset) for offset in range(count)])
        images = [self._image(position) for position in range(first, first + count)]
        begun = time.perf_counter()
        self.loaded.answer_all(images)
        return (time.perf_counter() - begun) * 1e3

    def throughput(self, count: int, batch: int) -> float:
        """Seconds for `count` images in batches of `batch`, at full speed."""
        images = [self._image(position) for position in range(count)]
        stream = getattr(self.loaded, "stream", None)
        begun = time.perf_counter()
        if stream is not None:
            stream(images, batch)
        else:
            for start in range(0, count, batch):
                self.loaded.answer_all(images[start : start + batch])
        return time.perf_counter() - begun

    def predicted_classes(self) -> list[int | None]:
        """Predicted class index of every image; None without a prediction."""
        answers = [self.loaded.answer(image) for image in self.images]
        return [None if not answer else max(range(len(answer)), key=answer.__getitem__) for answer in answers]

    def call(self, name: str, *arguments: Any) -> Any:
        """Result of the contender's own method `name(images, *arguments)`, which only some contenders have."""
        return getattr(self.loaded, name)(self.images, *arguments)

    def peak_rss(self) -> int:
        """Peak resident memory of the process, in bytes."""
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
        server = WorkerServer(importlib.import_module(module).load(**arguments))
        pipe.send((True, time.perf_counter() - begun))
        while True:
            method, values = pipe.recv()
            pipe.send((True, getattr(server, method)(*values)))
    except (EOFError, BrokenPipeError):
        return  # the parent has ended or closed the connection
    except StageproofError as error:
        pipe.send((False, str(error)))
    except Exception as error:  # noqa: BLE001  engines and compilers raise exceptions of any type
        pipe.send((False, f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"))


def _last_line(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
    return text.splitlines()[-1][-300:] if text else "its log is empty"
