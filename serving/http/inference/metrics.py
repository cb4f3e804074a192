"""Metrics for Prometheus: requests, stages, queue, batches, results, guard scores, drift, bundles.

With several worker processes, `prometheus_client` adds up what each writes to a shared folder, which the environment
variable PROMETHEUS_MULTIPROC_DIR names before the module is imported.
"""

from __future__ import annotations

import os
import threading
from collections import Counter, deque

import prometheus_client as prometheus
from prometheus_client import multiprocess

from stageproof.serving.http.inference.batching import Answer
from stageproof.serving.http.inference.loaded import Loaded

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

WINDOW = 1000
"""Images of each of the two windows that the drift of labels compares."""

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_RATIOS = (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 5.0)


class Metrics:
    """All metrics of a worker process; also the observer of its `Batcher`. Thread-safe."""

    def __init__(self) -> None:
        self._shared = FOLDER in os.environ
        registry = self._registry = prometheus.CollectorRegistry()
        if not self._shared:
            prometheus.ProcessCollector(registry=registry)
            prometheus.PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> prometheus.Counter:
            return prometheus.Counter(f"stageproof_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> prometheus.Histogram:
            return prometheus.Histogram(f"stageproof_{name}", text, labels, registry=registry, buckets=buckets)

        def gauge(name: str, text: str, mode: str, *labels: str) -> prometheus.Gauge:
            return prometheus.Gauge(
                f"stageproof_{name}",
                text,
                labels,
                registry=registry,
                multiprocess_mode=mode,  # type: ignore[arg-type]
            )

        self.requests = counter("requests_total", "Requests by route and status.", "route", "status")
        self.request_seconds = histogram("request_seconds", "Time from headers to response.", _SECONDS, "route")
        stage = "Time in the queue (wait, each request), and of decoding, guard and preprocessing, engine (each image)."
        self.stage_seconds = histogram("stage_seconds", stage, _SECONDS, "stage")
        self.queue_images = gauge("queue_images", "Images in the queue.", "livesum")
        self.held_bytes = gauge("held_bytes", "Bytes of requests that are received or answered.", "livesum")
        self.batch_images = histogram("batch_images", "Images of each batch.", _IMAGES)
        self.predictions = counter("predictions_total", "Images by status and reason code.", "status", "code")
        self.labels = counter("labels_total", "Images with status ok, by label.", "label")
        score = "Guard scores divided by their limit: above 1, the image is rejected."
        self.guard = histogram("guard_score_ratio", score, _RATIOS, "score")
        self.lost = counter(
            "dropped_total", "Requests without a prediction: full, expired, disconnected, failed.", "why"
        )
        self.reloads = counter("reloads_total", "Bundles loaded after the first: swapped or refused.", "outcome")
        self.ready = gauge("ready", "1 while the worker is ready; with several workers, their number.", "livesum")
        self.bundle = gauge("bundle", "1 for the bundle in use.", "livesum", "bundle_digest", "model_digest")
        recent = f"Fraction of the last {WINDOW} images that the guard rejects."
        self.rejected = gauge("guard_rejected_ratio", recent, "livemax")
        self.expected = gauge("guard_rejected_expected", "The same on held-out training slices.", "livemax")
        drift = (
            f"Total variation distance, 0 to 1, of the labels of the last {WINDOW} images from those of the first "
            f"{WINDOW} since the bundle was loaded."
        )
        self.drift = gauge("label_drift", drift, "livemax")
        self._lock = threading.Lock()
        self._loaded: Loaded | None = None
        self._forget()

    def text(self) -> bytes:
        """The metrics of all workers, in Prometheus' text format."""
        registry = self._registry
        if self._shared:
            registry = prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
        return prometheus.generate_latest(registry)

    def loaded(self, loaded: Loaded) -> None:
        """A bundle is in use from now on; drift is measured anew."""
        with self._lock:
            if (old := self._loaded) is not None:
                self.bundle.labels(old.bundle_digest, old.model_digest).set(0)
            self._loaded = loaded
            self._forget()
        self.bundle.labels(loaded.bundle_digest, loaded.model_digest).set(1)
        if loaded.expected_rejected is not None:
            self.expected.set(loaded.expected_rejected)

    def queue(self, images: int) -> None:
        """As `Observer.queue`."""
        self.queue_images.set(images)

    def batch(self, images: int) -> None:
        """As `Observer.batch`."""
        self.batch_images.observe(images)

    def waited(self, seconds: float) -> None:
        """As `Observer.waited`."""
        self.stage_seconds.labels("wait").observe(seconds)

    def dropped(self, why: str) -> None:
        """As `Observer.dropped`."""
        self.lost.labels(why).inc()

    def answered(self, answer: Answer) -> None:
        """As `Observer.answered`."""
        limits = answer.loaded.thresholds
        for one in answer.predictions:
            self.stage_seconds.labels("decode").observe(one.timings.read_ms / 1e3)
            self.stage_seconds.labels("preprocess").observe(one.timings.preprocess_ms / 1e3)
            if one.status != "rejected":
                self.stage_seconds.labels("engine").observe(one.timings.inference_ms / 1e3)
            self.predictions.labels(one.status, one.code).inc()
            if one.label is not None:
                self.labels.labels(one.label).inc()
            for name, score in {} if isinstance(one.guard, str) else one.guard.items():
                if limits.get(name, 0.0) > 0:
                    self.guard.labels(name).observe(score / limits[name])
        with self._lock:
            if answer.loaded is self._loaded:
                self._remember(answer)

    def _forget(self) -> None:
        self._guarded: deque[bool] = deque(maxlen=WINDOW)
        self._rejected_now = 0
        self._first: Counter[str] = Counter()
        self._recent: deque[str] = deque(maxlen=WINDOW)
        self._recent_counts: Counter[str] = Counter()

    def _remember(self, answer: Answer) -> None:
        for one in answer.predictions:
            if isinstance(one.guard, str) or one.code == "unreadable":
                continue
            is_rejected = one.status == "rejected"
            if len(self._guarded) == WINDOW:
                self._rejected_now -= self._guarded[0]
            self._guarded.append(is_rejected)
            self._rejected_now += is_rejected
        for label in (one.label for one in answer.predictions if one.label is not None):
            if self._first.total() < WINDOW:
                self._first[label] += 1
            if len(self._recent) == WINDOW:
                self._recent_counts[self._recent[0]] -= 1
            self._recent.append(label)
            self._recent_counts[label] += 1
        if self._guarded:
            self.rejected.set(self._rejected_now / len(self._guarded))
        if self._recent:
            first, recent = self._first.total(), len(self._recent)
            every = {*self._first, *self._recent_counts}
            moved = sum(abs(self._first[name] / first - self._recent_counts[name] / recent) for name in every)
            self.drift.set(moved / 2)
