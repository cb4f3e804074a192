"""The parity gate: runs one artifact in every available backend and compares it with the reference."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.export.data.evaluation_set import EvaluationSet
from stageproof.export.engines.aotinductor import TAKES as COMPILED
from stageproof.export.engines.runners import load_in_each, machine, one_line, run_in_batches
from stageproof.export.parity.report import Parity, compare, tolerance_for
from stageproof.export.parity.served import Served, serve
from stageproof.export.preprocessing import TAKES as PIXELS
from stageproof.export.preprocessing.evaluation_set import PixelEvaluationSet
from stageproof.export.reference.context import Job
from stageproof.runtime.backends import Backend
from stageproof.runtime.bundle.manifest import TENSOR, Check, ModelInfo
from stageproof.runtime.errors import BackendError, BundleError, ExportError, ParityError, StageproofError
from stageproof.runtime.serialization.json_fields import parse
from stageproof.runtime.softmax import probabilities
from stageproof.train.runs.pseudonyms import public_source

BATCHES = (1, 8, 32)
"""Batch sizes at which the same images are run, and once in a batch padded to the largest."""
NO_METADATA = ("tensorrt",)
"""Backends whose file format has no metadata for labels and input size; only their predictions are checked."""


@dataclass
class Verdict:
    """The result of one artifact in all available backends."""

    checks: list[Check] = field(default_factory=list)
    """One for each backend in which it passed."""
    failures: list[str] = field(default_factory=list)
    """One sentence for each backend in which it failed."""
    errors: list[str] = field(default_factory=list)
    """Exception type of each failure: ParityError, BackendError or ExportError."""
    skipped: list[str] = field(default_factory=list)
    """One sentence for each backend that could not run it here."""
    reports: list[dict[str, object]] = field(default_factory=list)
    """All measurements, of passed and failed backends."""

    def fail(self, error: type[StageproofError], sentence: str) -> None:
        """Add one failure."""
        self.failures.append(sentence)
        self.errors.append(error.__name__)

    @property
    def passed(self) -> bool:
        """Whether at least one backend runs it and no backend failed."""
        return bool(self.checks) and not self.failures


def judge(
    job: Job, path: Path, format_name: str, precision: str, *, timed: bool = True, pixels: bool = False
) -> Verdict:
    """The verdict on the file at `path`, in each backend that supports `format_name`.

    timed: also measure latency; if False, the checks record 0.
    pixels: the artifact takes pixels; it is run on images of ten sizes, greyscale and colour.
    """
    verdict = Verdict()
    takes = PIXELS if pixels else TENSOR
    for name, loaded in load_in_each(path, format_name, precision, job.threads, verdict.skipped, takes=takes):
        _check(job, verdict, name, loaded, f"{path.name} in {loaded.engine}", precision, timed, pixels)
    return verdict


def _check(
    job: Job, verdict: Verdict, name: str, loaded: Backend, what: str, precision: str, timed: bool, pixels: bool
) -> None:
    """Add the result of one loaded backend to `verdict`."""
    problem = _metadata_problem(loaded.metadata, job.description(precision, pixels))
    if problem and name not in NO_METADATA:
        verdict.fail(ExportError, f"{what} {problem}")
        return
    try:
        parity = (measure_pixels if pixels else measure)(job, loaded, precision, what)
    # Engines raise exceptions of any type, for example for a fixed batch axis.
    except Exception as error:  # noqa: BLE001
        verdict.fail(BackendError, f"{what} fails on the comparison images: {one_line(error)}")
        return
    verdict.reports.append({"backend": name, "engine": loaded.engine, **parity.to_dict()})
    if not parity.holds:
        verdict.fail(ParityError, f"{what} {parity}")
        return
    images = job.pixels.images if pixels else job.evaluation_set.images
    latency = latency_ms(loaded, images) if timed else 0.0
    verdict.checks.append(Check(name, loaded.engine, parity.to_dict(), latency, machine(job.threads)))


def measure(job: Job, loaded: Backend, precision: str, what: str = "artifact") -> Parity:
    """The comparison of a loaded artifact with the reference on the job's images. Exceptions of the engine propagate.

    what: name of the artifact in messages and progress bars.
    """
    images = job.evaluation_set.images
    # Batches of 8, with a smaller one first, to detect a fixed batch axis or batch-dependent predictions.
    logits = run_in_batches(loaded, images, len(images) % 8 or 1, what=what)
    others = _batched_otherwise(loaded, images[: BATCHES[-1]])
    return _compared(job, job.evaluation_set, job.evaluation_set.logits, logits, others, precision)


def measure_pixels(job: Job, loaded: Backend, precision: str, what: str = "artifact") -> Parity:
    """As `measure`, for an artifact that takes pixels; one batch per image size."""
    evaluation_set, temperature = job.pixels, job.reference.info.temperature
    groups = evaluation_set.groups()
    artifact = np.concatenate([run_in_batches(loaded, group, len(group) % 8 or 1, what=what) for group in groups])
    others = _batched_otherwise(loaded, groups[0][: BATCHES[-1]])
    reference = evaluation_set.logits
    if job.options.with_softmax:
        reference = log_probabilities(probabilities(reference, temperature), temperature)
        artifact, *others = (log_probabilities(rows, temperature) for rows in (artifact, *others))
    return _compared(job, evaluation_set, reference, artifact, others, precision)


def _batched_otherwise(loaded: Backend, few: np.ndarray) -> list[np.ndarray]:
    """Logits of the first images, run in batches of each of `BATCHES`, and in one batch padded with zeros."""
    batches = [np.concatenate([loaded.run(few[i : i + size]) for i in range(0, len(few), size)]) for size in BATCHES]
    padded = np.concatenate([few[:3], np.zeros((BATCHES[-1] - 3, *few.shape[1:]), few.dtype)])
    return [*batches, loaded.run(padded)[: len(few[:3])]]


def _compared(
    job: Job,
    evaluation_set: EvaluationSet | PixelEvaluationSet,
    reference: np.ndarray,
    artifact: np.ndarray,
    others: list[np.ndarray],
    precision: str,
) -> Parity:
    return compare(
        reference,
        artifact,
        job.reference.info.labels,
        tolerance=tolerance_for(precision, job.options.tolerance, job.options.flip_tolerance),
        temperature=job.reference.info.temperature,
        source=public_source(evaluation_set.source),
        names=evaluation_set.names,
        truth=evaluation_set.truth,
        batches=others,
        people=evaluation_set.people,
        unit=job.evaluation_set.unit,
        # Artifacts that take pixels are used without the runtime, so there is no abstention and no guard.
        serve=partial(_served, job) if isinstance(evaluation_set, EvaluationSet) else None,
        artifacts=job.evaluation_set.artifacts,
    )


def _served(job: Job, logits: np.ndarray) -> Served:
    return serve(job.reference.info, logits, job.evaluation_set.people, job.evaluation_set.rejected)


def log_probabilities(rows: np.ndarray, temperature: float) -> np.ndarray:
    """(N, classes) logits whose softmax at `temperature` is `rows`; any constant could be added to each row."""
    logits: np.ndarray = temperature * np.log(np.maximum(rows, np.finfo(np.float32).tiny))
    return logits


def latency_ms(backend: Backend, images: Sequence[np.ndarray] | np.ndarray, runs: int = 20) -> float:
    """Median latency of one image in milliseconds, engine only, after warm-up. For latencies that can be compared with
    each other see `export.engines.latency`."""
    times = []
    for run in range(runs + 3):
        image = images[run % len(images)][None]
        start = time.perf_counter()
        backend.run(image)
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:]) * 1e3


def _metadata_problem(metadata: str | None, expected: dict[str, Any]) -> str | None:
    """How the labels and input in the artifact's metadata differ from those expected; None if they are the same."""
    if metadata is None:
        return "has no metadata with labels and input size"
    try:
        carried = {**parse(metadata, "its metadata"), **ModelInfo.from_json(metadata, "its metadata").to_dict()}
    except BundleError as error:
        return f"has metadata that cannot be read: {error}"
    if carried.get("takes") == COMPILED:
        expected = {**expected, "takes": COMPILED}
    different = [key for key in {**carried, **expected} if carried.get(key) != expected.get(key)]
    if not different:
        return None
    key = different[0]
    return f"has {key} {carried.get(key)} in its metadata, expected {expected.get(key)}"
