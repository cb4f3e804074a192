"""`Batcher`: one bounded queue in front of one Predictor.

A batch is what waited while the engine ran the last one; nothing waits for a batch to fill, unless `max_wait` is given.
Each request has a future of its own, which gets the predictions of its own images. Requests are answered whole, by one
Predictor: a new bundle takes effect between batches.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from stageproof.runtime.errors import ImageError
from stageproof.runtime.images.reader import Source
from stageproof.runtime.prediction import Prediction, StudyPrediction
from stageproof.runtime.predictor import Predictor
from stageproof.serving.http.inference.errors import Refusal
from stageproof.serving.http.inference.loaded import Loaded

logger = logging.getLogger(__name__)

EXPIRED = "the deadline of the request passed before it was predicted. Send fewer images at once, or wait longer."
STOPPED = "the service is stopping. Send the request to another instance, or again later."


@dataclass(frozen=True)
class Answer:
    """The predictions for one request, and what made them."""

    predictions: tuple[Prediction, ...]
    loaded: Loaded
    study: StudyPrediction | None = None


@dataclass
class Work:
    """One request in the queue."""

    images: Sequence[Source]
    study: bool
    """Whether the images are the slices of one patient."""
    deadline: float
    """`time.monotonic()` after which no answer is wanted."""
    queued: float = field(default_factory=time.monotonic)
    future: Future[Answer] = field(default_factory=Future)


class Observer(Protocol):
    """What a Batcher reports, from its threads."""

    def queue(self, images: int) -> None:
        """Number of images in the queue."""

    def batch(self, images: int) -> None:
        """A batch of so many images starts."""

    def waited(self, seconds: float) -> None:
        """Time of a request in the queue."""

    def dropped(self, why: str) -> None:
        """A request was not predicted: ``expired``, ``disconnected``, ``full`` or ``failed``."""

    def answered(self, answer: Answer) -> None:
        """A request was predicted."""


class Batcher:
    """Threads that run batches of queued requests. Thread-safe.

    current: the Predictor for the next batch. runners: threads; while one runs the engine, another one decodes.
    max_images: limit on the images in the queue. max_batch: images after which no further request joins a batch.
    max_wait: seconds that the first request of a batch waits at most for others; 0: it does not wait.
    """

    def __init__(
        self,
        current: Callable[[], Loaded],
        observer: Observer,
        *,
        runners: int = 2,
        max_images: int = 256,
        max_batch: int = 64,
        max_wait: float = 0.0,
    ) -> None:
        self._current, self._observer = current, observer
        self._max_images, self._max_batch, self._max_wait = max_images, max_batch, max_wait
        self._queue: deque[Work] = deque()
        self._waiting = 0
        """Images in the queue."""
        self._changed = threading.Condition()
        self._closed = False
        self._seconds_per_image = 0.01
        self._threads = [
            threading.Thread(target=self._run, name=f"stageproof-batch-{number}", daemon=True)
            for number in range(runners)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, images: Sequence[Source], deadline: float, *, study: bool = False) -> Future[Answer]:
        """The future of the answer. Cancel it if nobody wants the answer any more.

        Raises Refusal (503) if the queue is full or the batcher closed; the future raises Refusal (504) for a request
        that is taken from the queue after its deadline, and else what the Predictor raised.
        """
        work = Work(images, study, deadline)
        with self._changed:
            if self._closed:
                raise Refusal(503, STOPPED, retry_after=1)
            if self._waiting and self._waiting + len(images) > self._max_images:
                self._observer.dropped("full")
                raise Refusal(
                    503,
                    f"the queue has {self._waiting} images, and {len(images)} more would exceed {self._max_images}. "
                    "Send the request again later.",
                    retry_after=self._retry_after(),
                )
            self._queue.append(work)
            self._waiting += len(images)
            self._observer.queue(self._waiting)
            self._changed.notify()
        work.future.add_done_callback(lambda done: self._forget(work) if done.cancelled() else None)
        return work.future

    def _forget(self, work: Work) -> None:
        """Free the place and the images of a request that nobody waits for."""
        with self._changed:
            left = [one for one in self._queue if one is not work]
            if len(left) < len(self._queue):
                self._queue = deque(left)
                self._waiting -= len(work.images)
                self._observer.queue(self._waiting)
                self._observer.dropped(_why(work))

    def close(self) -> None:
        """Refuse new requests, answer those in the queue, and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _retry_after(self) -> int:
        """Whole seconds in which the queue empties at the recent speed, 1 to 60."""
        return min(60, max(1, math.ceil(self._waiting * self._seconds_per_image)))

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if batch:
                self._predict(batch)

    def _take(self) -> list[Work] | None:
        """The requests of the next batch that somebody still waits for; None when closed and empty."""
        with self._changed:
            while not self._queue:
                if self._closed:
                    return None
                self._changed.wait()
            full_at = self._queue[0].queued + self._max_wait
            while self._queue and self._waiting < self._max_batch and not self._closed:
                if (left := full_at - time.monotonic()) <= 0:
                    break
                self._changed.wait(left)
            taken: list[Work] = []
            images = 0
            while self._queue and (not taken or images + len(self._queue[0].images) <= self._max_batch):
                if taken and (taken[0].study or self._queue[0].study):
                    break  # a study is a batch of its own
                work = self._queue.popleft()
                self._waiting -= len(work.images)
                if self._is_wanted(work):
                    taken.append(work)
                    images += len(work.images)
            self._observer.queue(self._waiting)
            return taken

    def _is_wanted(self, work: Work) -> bool:
        if not work.future.set_running_or_notify_cancel():
            self._observer.dropped(_why(work))
            return False
        now = time.monotonic()
        if now > work.deadline:
            self._observer.dropped("expired")
            work.future.set_exception(Refusal(504, EXPIRED))
            return False
        self._observer.waited(now - work.queued)
        return True

    def _predict(self, batch: list[Work]) -> None:
        """Answer every request of the batch."""
        loaded, start = self._current(), time.monotonic()
        images = [image for work in batch for image in work.images]
        self._observer.batch(len(images))
        left = deque(batch)
        if not batch[0].study:
            try:
                results = _predicted(loaded.predictor, images)
                while left:
                    found = tuple(islice(results, len(left[0].images)))
                    assert len(found) == len(left[0].images), "one prediction per image"
                    self._finish(left.popleft(), Answer(found, loaded))
            except Exception as error:  # noqa: BLE001  the others may be predicted without the one that failed
                logger.error(f"a batch of {len(batch)} requests failed ({type(error).__name__}); each is run alone")
        while left:
            work = left.popleft()
            try:
                self._finish(work, _alone(work, loaded))
            except Exception as error:
                self._observer.dropped("failed")
                logger.exception(f"a request of {len(work.images)} images failed ({type(error).__name__})")
                work.future.set_exception(error)
        taken = (time.monotonic() - start) / len(images)
        self._seconds_per_image += 0.2 * (taken - self._seconds_per_image)

    def _finish(self, work: Work, answer: Answer) -> None:
        work.future.set_result(answer)
        self._observer.answered(answer)


def _why(work: Work) -> str:
    """Why a request was cancelled. Its timer may fire some milliseconds early."""
    return "expired" if time.monotonic() > work.deadline - 0.02 else "disconnected"


def _predicted(predictor: Predictor, images: list[Source]) -> Iterator[Prediction]:
    """As `Predictor.stream`; one image without the threads of a stream, which cost more than a small network takes."""
    if len(images) == 1:
        with suppress(ImageError):  # of which a stream makes a rejected prediction
            return iter([predictor.predict(images[0])])
    return predictor.stream(images)


def _alone(work: Work, loaded: Loaded) -> Answer:
    if work.study:
        study = loaded.predictor.predict_study(work.images)
        return Answer(study.slices, loaded, study)
    return Answer(tuple(loaded.predictor.predict_batch(work.images)), loaded)
