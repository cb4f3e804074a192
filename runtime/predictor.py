"""`Predictor`: from what a user has (a file, bytes, an array) to a `Prediction`, over whichever engine is here."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import length_hint
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from runtime.backends import DEVICES
from runtime.calibration import probabilities
from runtime.errors import BackendError, BundleError, ImageError, InputError
from runtime.labels import clinical_order
from runtime.lanes import LANES, SHORT, in_lanes
from runtime.manifest import ModelInfo
from runtime.pipeline import Prepared, Rows, fill, prepare
from runtime.prediction import Prediction, StudyPrediction, Timings, stage_of, study, unsure
from runtime.reading import Picture, Source, read_all
from runtime.selftest import SelfTest, self_test
from runtime.serving import open_artifact, open_bundle
from runtime.streams import Batches
from runtime.threads import available_cpus

if TYPE_CHECKING:
    from runtime.audit import AuditLog

__all__ = ["DEFAULT_BUNDLE", "Predictor", "probabilities"]

DEFAULT_BUNDLE = "bundle"
"""Where `python -m export` writes unless told otherwise."""


class Predictor:
    """Four-stage prediction for brain-MRI slices. For research; not a medical device.

    Any number of threads may share one Predictor. It opens no connection and writes nothing but `audit` and `tune`.

    path: a bundle folder, or a lone artifact (`.onnx`, `.ts`, …) that python -m export wrote.
    backend: ``openvino``, ``onnx``, ``tensorrt``, ``torchscript``, ``torch-export`` or ``pytorch``. Named, it never
        falls back to another; None takes the fastest one that passed parity at export and runs here.
    precision: ``fp32``, …; None takes any.
    device: ``cpu``, ``cuda``, or ``tensorrt``: CUDA through TensorRT, by an engine file or by ONNX Runtime's provider.
        What runs there runs there as a whole: nothing falls back to another device.
    threads: CPU threads for the engine; None takes all this process may use.
    guard: False lets every readable image through to the model, for measurements: a bundle's guard is there to be used.
    abstain_below: answer only from this probability on; None takes what the bundle says.
    self_test: True replays the bundle's golden images first, and raises BackendError where they do not agree.
    tune: True times every artifact on this machine and serves the fastest; the path of a JSON file also remembers the
        times there, for this bundle and machine.
    audit: a file to which every prediction adds a line without patient data (`runtime.audit`).

    Raises BundleError for a bundle that cannot be trusted, BackendUnavailable when no engine here can serve it,
    BackendError when the engine fails, InputError for arguments that make no sense.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_BUNDLE,
        *,
        backend: str | None = None,
        precision: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        guard: bool = True,
        abstain_below: float | None = None,
        self_test: bool = False,
        tune: bool | str | os.PathLike[str] = False,
        audit: str | os.PathLike[str] | None = None,
    ) -> None:
        if device not in DEVICES:
            raise InputError(f"device is {device!r}, expected one of {', '.join(map(repr, DEVICES))}.")
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, expected at least 1, or None for all this process may use.")
        if abstain_below is not None and not 0 <= abstain_below < 1:
            raise InputError(f"abstain_below is {abstain_below}, expected 0 or more and below 1.")
        where = Path(path)
        if not where.exists():
            raise BundleError(f"{where} does not exist. Make a bundle with: python -m export --out {where}")
        threads = threads or available_cpus()
        if where.is_file():
            self._serving = open_artifact(where, backend, precision, device, threads)
        else:
            self._serving = open_bundle(where, backend, precision, device, threads, tune)
        self._rows = Rows(self.model.input.shape)
        self._batches = Batches(self._serving)
        self._names = clinical_order(self.model.labels)
        self._guard = self._serving.guard if guard else None
        self._abstain_below = self.model.abstain_below if abstain_below is None else abstain_below
        self._audit = None if audit is None else _audit_log(Path(audit))
        self._digest = None if self._audit is None else self._audit.pixels
        if self_test and not (result := self.self_test()).passed:
            raise BackendError(f"The self-test failed: {result}. Do not use {self.artifact} on this machine.")

    @property
    def model(self) -> ModelInfo:
        """Architecture, digest, labels, `InputSpec`, temperature and abstention threshold."""
        return self._serving.model

    @property
    def labels_from(self) -> str | None:
        """Where the order of the classes comes from, one of `runtime.labels.LABELS_FROM`; None where the bundle does
        not record it, and for a lone artifact."""
        return self._serving.labels_from

    @property
    def backend(self) -> str:
        """Name of the backend that serves."""
        return self._serving.name

    @property
    def precision(self) -> str:
        """Precision of the artifact that serves; ``unknown`` for a lone artifact."""
        return self._serving.precision

    @property
    def artifact(self) -> Path:
        """The file that serves."""
        return self._serving.artifact

    @property
    def engine(self) -> str:
        """Name and version of the engine that serves."""
        return self._serving.engine.engine

    @property
    def guarded(self) -> bool:
        """Whether images are judged before the model sees them: the bundle has a guard, and it was not turned off."""
        return self._guard is not None

    def explain(self) -> list[str]:
        """One line for each artifact and backend considered, in order of preference, with the reason."""
        return [*map(str, self._serving.considered), *self._serving.never_served]

    def predict(self, image: Source) -> Prediction:
        """The prediction for one image.

        image: a path, encoded bytes, file object, PIL image, or uint8 array (H, W[, 3]); DICOM files with one frame.
        Raises ImageError when it cannot be read as one still image. An image the guard rejects, or on which the model
        is not sure, is a result: see `Prediction.status`.
        """
        (prepared,) = prepare([image], self.model.input, self._guard, self._digest)
        if prepared.error is not None:
            raise prepared.error
        (result,) = self._answers([prepared], self._rows, self._one)
        if self._audit is not None:
            self._audit.record(result, prepared.digest)
        return result

    def predict_batch(self, images: Iterable[Source], batch_size: int | None = None) -> list[Prediction]:
        """One prediction for each image, in order, as `stream` gives them."""
        return list(self.stream(images, batch_size))

    def stream(
        self, images: Iterable[Source], batch_size: int | None = None, workers: int | None = None
    ) -> Iterator[Prediction]:
        """Predictions, in order, for any number of images in constant memory.

        batch_size: images that the engine is given at once; None takes what suits the device.
        workers: threads, of which one prepares images while the others wait for the engine; None takes as many as this
            process has CPUs, from two to four. At least workers + 1 batches are taken from `images` before the first
            prediction comes out; later, in a long stream, up to some 200 images, and more where a batch holds over 16.

        After some hundred images OpenVINO and ONNX Runtime, on a CPU, load the same artifact again, to answer a batch
        on each thread: up to a tenth faster, for its memory once more, in OpenVINO once more for each of the workers.
        Unless `batch_size` says otherwise, these batches are then tried at up to three sizes, and go on at the fastest.

        An image that cannot be read gives a prediction with status ``rejected`` and code ``unreadable``, and stops
        nothing.
        """
        if isinstance(images, (str, bytes, bytearray, os.PathLike, Picture)):
            raise InputError(f"images is one {type(images).__name__}, expected several. Use predict() for one image.")
        _at_least_one(batch_size=batch_size, workers=workers)
        return self._stream(images, batch_size, workers, length_hint(images))

    def predict_study(self, images: Iterable[Source], batch_size: int | None = None) -> StudyPrediction:
        """One patient's result from slices of one scan: the mean over those that were not rejected.

        images: as for `predict`; each frame of a multi-frame DICOM file counts as a slice.
        Raises InputError where there is no image at all.
        """
        _at_least_one(batch_size=batch_size)
        if isinstance(images, (str, bytes, bytearray, os.PathLike, Picture)):
            images = [images]
        frames = (frame for image in images for frame in _frames(image))
        slices = list(self._stream(frames, batch_size, None, length_hint(images)))
        if not slices:
            raise InputError("images is empty; expected the slices of one patient.")
        return study(slices, self._abstain_below)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits, before temperature, of (N, C, H, W) float32 images from `preprocess`."""
        shape = self.model.input.shape
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != shape or not len(images):
            raise InputError(
                f"images is {images.dtype} of shape {images.shape}; this bundle expects float32 (N, "
                f"{', '.join(map(str, shape))}) with N at least 1, as runtime.preprocess gives it."
            )
        return self._serving.logits(np.ascontiguousarray(images))

    def self_test(self) -> SelfTest:
        """The bundle's golden images, replayed on this machine and compared with what the reference made of them.

        Raises InputError for a lone artifact, and for a bundle without golden images.
        """
        return self_test(self._serving)

    def _stream(
        self, images: Iterable[Source], batch_size: int | None, workers: int | None, known: int
    ) -> Iterator[Prediction]:
        """known: how many there are at least; a stream that does not say so is a long one once it has shown it."""
        rows = Rows(self.model.input.shape)
        lanes = workers or max(LANES[0], min(LANES[1], available_cpus()))
        first = batch_size or self._batches.largest  # as long as a stream is not known to be a long one
        batches = itertools.count()

        def size(taken: int) -> int:
            return batch_size or self._batches.size(many=known > SHORT or taken >= SHORT)

        def prepared(sources: list[Source]) -> list[Prepared]:
            return prepare(sources, self.model.input, self._guard, self._digest)

        def answers(batch: list[Prepared]) -> list[tuple[Prediction, str | None]]:
            many = known > SHORT or next(batches) * first >= SHORT
            asked = None if batch_size else len(batch)
            results = self._answers(batch, rows, partial(self._batches.logits, many=many, size=asked))
            return [(result, one.digest) for result, one in zip(results, batch, strict=True)]

        for result, digest in in_lanes(images, prepared, answers, batch_size=size, lanes=lanes):
            if self._audit is not None:
                self._audit.record(result, digest)
            yield result

    def _one(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        start = time.perf_counter()
        logits = self._serving.logits(images)
        return logits, (time.perf_counter() - start) * 1e3

    def _answers(
        self, batch: list[Prepared], spare: Rows, logits_of: Callable[[np.ndarray], tuple[np.ndarray, float]]
    ) -> list[Prediction]:
        """One for each of the batch, in order. logits_of: (N, C, H, W) float32 → logits, milliseconds of the engine."""
        rows = spare.take(len(batch))
        count, normalise_ms = fill(rows, batch, self.model.input)
        answered: list[list[float]] = []
        engine_ms = 0.0
        if count:
            logits, engine_ms = logits_of(rows[:count])
            answered = probabilities(logits, self.model.temperature).tolist()
        spare.give_back(rows)
        each = iter(answered)
        return [
            self._prediction(one, None, 0.0, 0.0)
            if one.pixels is None
            else self._prediction(one, next(each), normalise_ms, engine_ms / count)
            for one in batch
        ]

    def _prediction(
        self, prepared: Prepared, answer: list[float] | None, normalise_ms: float, inference_ms: float
    ) -> Prediction:
        by_label = {} if answer is None else dict(zip(self.model.labels, answer, strict=True))
        top = max(by_label, key=by_label.__getitem__) if by_label else None
        code, reason = prepared.code, prepared.reason
        if top is not None and by_label[top] < self._abstain_below:
            code, reason = "unsure", unsure(by_label[top], self._abstain_below)
        label = None if code else top
        return Prediction(
            status="rejected" if top is None else "abstained" if code else "ok",
            label=label,
            cdr=None if label is None else stage_of(label),
            probability=None if label is None else by_label[label],
            probabilities={name: by_label[name] for name in self._names} if by_label else {},
            code=code,
            reason=reason,
            guard=prepared.guard,
            transforms=prepared.transforms,
            warnings=prepared.warnings,
            backend=self.backend,
            precision=self.precision,
            model_digest=self.model.digest,
            timings=Timings(prepared.read_ms, prepared.preprocess_ms + normalise_ms, inference_ms),
        )


def _at_least_one(**numbers: int | None) -> None:
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, expected at least 1.")


def _audit_log(path: Path) -> AuditLog:
    from runtime.audit import AuditLog  # here, since `python -m runtime.audit` may not find itself imported already

    return AuditLog(path)


def _frames(source: Source) -> list[Source]:
    """The frames of a DICOM file; any other source, also one that cannot be read, as it is."""
    try:
        return list(read_all(source))
    except ImageError:
        return [source]
