"""`Predictor`: loads a bundle or artifact into an engine and predicts files, encoded bytes, PIL images and arrays."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.bundle.identity import OPTIONS, absolute, restored
from stageproof.runtime.bundle.manifest import DEFAULT_BUNDLE, ModelInfo
from stageproof.runtime.bundle.trust import Trust
from stageproof.runtime.decoding.pool import decoding_pool
from stageproof.runtime.errors import BackendError, InputError, without_traceback
from stageproof.runtime.headers.limits import MAX_PIXELS
from stageproof.runtime.images.reader import Source
from stageproof.runtime.inference.answers import PredictionBuilder
from stageproof.runtime.inference.arguments import (
    at_least_one,
    check_bundle_path,
    check_options,
    check_pixels,
    check_slices,
    open_audit_log,
    several,
)
from stageproof.runtime.inference.engine_settings import EngineSettings, OptimizeFor
from stageproof.runtime.inference.input_batches import Rows, prepare, prepare_frames
from stageproof.runtime.inference.loading import open_bundle
from stageproof.runtime.inference.lone_artifact import open_artifact
from stageproof.runtime.inference.self_test import SelfTest, self_test
from stageproof.runtime.inference.streaming import predictions
from stageproof.runtime.prediction import Prediction, StudyPrediction, study_by
from stageproof.runtime.softmax import probabilities
from stageproof.runtime.system.caller import warn
from stageproof.runtime.system.cpus import available_cpus
from stageproof.runtime.system.forks import check_process
from stageproof.runtime.text.hints import missing_guard

__all__ = ["Predictor", "probabilities"]


class Predictor:
    """Predicts the class (such as the disease stage) of brain-MRI slices. For research; not a medical device.

    Thread-safe. Not fork-safe: in a forked child, it raises ForkError. Pickling stores the path and options; unpickling
    loads the unchanged bundle again. It opens no network connection and writes no files but `audit` and `tune`.

    path: a bundle folder, or a lone exported artifact without code (`.onnx`, `.xml`, `.safetensors`).
    backend: ``openvino``, ``onnx``, ``tensorrt``, ``torchscript``, ``torch-export`` or ``pytorch``, without fallback;
        None takes the fastest one that passed parity at export and runs here.
    precision: ``fp32``, …; None takes any.
    device: ``cpu``, ``cuda``, or ``tensorrt``: CUDA through TensorRT, with an engine file or ONNX Runtime's TensorRT
        provider. The whole model runs on this device, without fallback.
    threads: CPU threads of the engine; None takes all that are available to this process.
    optimize_for: ``latency`` runs one batch at a time with all threads; ``throughput`` runs up to four at once with a
        share of the threads each, for streams of a few hundred images or more. The engine is loaded once, in this mode,
        with one copy of the weights. Each further call holds its activations: with ResNet50 at 128 x 128, 36 MB
        (OpenVINO) or 65 MB (ONNX Runtime). On a GPU, both modes run one batch at a time.
    guard: False disables the bundle's check for out-of-distribution images; for measurements only. A lone artifact
        has no guard, which causes a RuntimeWarning unless guard=False.
    abstain_below: abstention threshold for slices and studies; None takes the bundle's threshold for each.
    self_test: True runs `self_test` first and raises BackendError if it fails.
    tune: True measures every artifact on this machine and loads the fastest; a path caches the latencies there (JSON).
    audit: audit log (`runtime.audit`): one line per prediction, without patient data, written before it is returned.
    audit_key: file with the key of `audit`; None takes that of `runtime.audit.chain.key_path`, LOG.key by default.
    isolate: decode files in sandboxed processes, which exit with the last Predictor (docs/SECURITY-DECODING.md); False
        for hosts that are sandboxed themselves. Arrays and PIL images are not decoded.
    max_pixels: upper limit on the pixels of an image or frame; above it, ImageError.
    trust_code: also load artifacts that contain code (`.ts`, `.pt2`, `.engine`), tried after all others.
    trusted_key: public key (PEM) that must have signed the bundle. Needs the extra verify.
    trusted_digest: required `digest`: SHA-256 of the bundle's manifest, or of the lone artifact.

    Raises TrustError for an untrusted bundle or file, BundleError for a modified one, BackendUnavailable if no
    installed engine can run it, BackendError if the engine fails, AuditError if the log cannot be written,
    IsolationError if no decoder process can be started, InputError for invalid arguments.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = DEFAULT_BUNDLE,
        *,
        backend: str | None = None,
        precision: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        optimize_for: OptimizeFor = "latency",
        guard: bool = True,
        abstain_below: float | None = None,
        self_test: bool = False,
        tune: bool | str | os.PathLike[str] = False,
        audit: str | os.PathLike[str] | None = None,
        audit_key: str | os.PathLike[str] | None = None,
        isolate: bool = True,
        max_pixels: int = MAX_PIXELS,
        trust_code: bool = False,
        trusted_key: str | os.PathLike[str] | None = None,
        trusted_digest: str | None = None,
    ) -> None:
        self._process = os.getpid()
        check_options(device, threads, optimize_for, abstain_below, max_pixels)
        where = check_bundle_path(path, tune=tune, audit=audit, audit_key=audit_key)
        trust = Trust.of(trust_code, trusted_key, trusted_digest)
        self._path = where.absolute()  # keeps symbolic links: a bundle is often updated by redirecting one
        paths = (absolute(tune), absolute(audit), absolute(audit_key))
        limits, trusted = (isolate, max_pixels), (trust_code, absolute(trusted_key), trusted_digest)
        engine = (backend, precision, device, threads, optimize_for)
        options = (*engine, guard, abstain_below, self_test, *paths, *limits, *trusted)
        self._options = dict(zip(OPTIONS, options, strict=True))
        self._audit = open_audit_log(audit, audit_key)
        self._pool = decoding_pool() if isolate else None
        settings = EngineSettings(backend, precision, device, threads or available_cpus(), optimize_for)
        given = (where, settings, trust)
        self._serving = open_artifact(*given) if where.is_file() else open_bundle(*given, tune)
        self._rows = Rows(self.model.input.shape)
        self._calls = threading.Semaphore(self.concurrent_calls)
        self._guard = self._serving.guard if guard else None
        self._max_pixels = max_pixels
        self._abstain_below = self.model.abstain_below if abstain_below is None else abstain_below
        self._answers = PredictionBuilder(self.model, self.backend, self.precision, self._abstain_below, self.guarded)
        if guard and where.is_file():
            warn(missing_guard(where))
        if self_test and not (result := self.self_test()).passed:
            raise BackendError(f"The self-test failed: {result}. Do not use {self.artifact} on this machine.")

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), str(self._path), self._options, self.digest)

    def __deepcopy__(self, memo: Any = None) -> Predictor:
        return self  # immutable and thread-safe

    __copy__ = __deepcopy__

    @property
    def path(self) -> Path:
        """Absolute path of the bundle or lone artifact."""
        return self._path

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's manifest, which lists those of all its files; for a lone artifact, of the file."""
        return self._serving.digest

    @property
    def audit_anchor(self) -> str | None:
        """``N:DIGEST``: number of predictions in the audit log, and digest of its last line; None without a log."""
        return None if self._audit is None else self._audit.anchor

    @property
    def model(self) -> ModelInfo:
        """Architecture, digest, labels, `InputSpec`, temperature, abstention threshold and study rule."""
        return self._serving.model

    @property
    def labels_from(self) -> str | None:
        """Origin of the class order, one of `runtime.labels.LABELS_FROM`; None: not recorded."""
        return self._serving.labels_from

    @property
    def backend(self) -> str:
        """Name of the backend in use."""
        return self._serving.name

    @property
    def precision(self) -> str:
        """Precision of the loaded artifact; ``unknown`` for a lone artifact."""
        return self._serving.precision

    @property
    def artifact(self) -> Path:
        """Path of the loaded artifact."""
        return self._serving.artifact

    @property
    def engine(self) -> str:
        """Name and version of the engine in use."""
        return self._serving.engine.engine

    @property
    def optimize_for(self) -> OptimizeFor:
        """Mode of the engine, ``latency`` or ``throughput``."""
        return self._serving.settings.optimize_for

    @property
    def concurrent_calls(self) -> int:
        """Number of batches that the engine runs at once; 1 for latency."""
        return self._serving.settings.concurrent_calls

    @property
    def guarded(self) -> bool:
        """Whether a guard rejects out-of-distribution images: the bundle has one, and ``guard`` is not False."""
        return self._guard is not None

    @property
    def isolation(self) -> tuple[str, ...]:
        """Restrictions that the kernel enforces on decoder processes; empty if files are decoded in this process."""
        return () if self._pool is None else self._pool.enforced()

    @property
    def _prepare_options(self) -> dict[str, Any]:
        """Arguments of `prepare` after the images."""
        options = {"spec": self.model.input, "guard": self._guard, "max_pixels": self._max_pixels, "pool": self._pool}
        return {**options, "digest": None if self._audit is None else self._audit.pixels}

    def explain(self) -> list[str]:
        """One line per candidate artifact and backend, in order of preference, with why it was chosen or skipped."""
        return [*map(str, self._serving.considered), *self._serving.unusable_artifacts]

    def predict(self, image: Source) -> Prediction:
        """The prediction for one image.

        image: a path, encoded bytes, file object, PIL image, or uint8 array (H, W[, 3]); DICOM files with one frame.
        Raises ImageError if it cannot be read as a single image. Rejection by the guard and abstention are results, not
        errors: see `Prediction.status`.
        """
        check_process(self._process)
        (prepared,) = prepare([image], **self._prepare_options)
        if prepared.error is not None:
            del image  # the traceback would keep it in memory
            raise without_traceback(prepared.error)
        (result,) = self._answers.of([prepared], self._rows, self._serving.timed)
        if self._audit is not None:
            self._audit.record(result, prepared.digest)
        return result

    def predict_batch(self, images: Iterable[Source], batch_size: int | None = None) -> list[Prediction]:
        """One prediction per image, in input order; as `stream`, returned as a list."""
        return list(self.stream(images, batch_size))

    def stream(
        self, images: Iterable[Source], batch_size: int | None = None, workers: int | None = None
    ) -> Iterator[Prediction]:
        """Iterator of predictions, in input order, for any number of images in constant memory.

        batch_size: images per call of the engine; None takes a fixed size for the device and the input size.
        workers: threads; one reads images while the others run the engine. None takes `concurrent_calls`, and one more
            if a CPU is left for it, but at least 2. At most 64 images and 2 * workers + 2 batches are in memory.

        An unreadable image results in a prediction with status ``rejected`` and code ``unreadable``. If the engine
        fails, BackendError gives the positions of the images, after the predictions of all earlier ones.
        """
        check_process(self._process)
        at_least_one(batch_size=batch_size, workers=workers)
        return self._stream(several(images), batch_size, workers)

    def predict_study(self, images: Source | Iterable[Source], batch_size: int | None = None) -> StudyPrediction:
        """The result for one patient, from slices of one scan. Rejected slices are ignored.

        The probabilities come from the bundle's study rule or, without one, are the mean of the slices' probabilities;
        see `StudyPrediction.method`.

        images: as for `predict`; each frame of a multi-frame DICOM file is a slice. Also one file with all slices, or
            the folder that contains them (`runtime.images.folders.images_in`).
        Raises InputError if there is no image.
        """
        check_process(self._process)
        at_least_one(batch_size=batch_size)
        slices = list(self._stream(check_slices(images), batch_size, None, frames=True))
        if not slices:
            raise InputError("images is empty; expected the slices of one patient.")
        given = self._options["abstain_below"] is not None
        return study_by(self.model, slices, self._abstain_below if given else None)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits, before temperature scaling, of (N, C, H, W) float32 images from `preprocess`."""
        check_process(self._process)
        check_pixels(images, self.model.input.shape)
        return self._serving.logits(np.ascontiguousarray(images))

    def self_test(self) -> SelfTest:
        """Comparison of this machine's logits for the bundle's golden images with the reference's stored logits.

        Raises InputError for a lone artifact, and for a bundle without golden images.
        """
        check_process(self._process)
        return self_test(self._serving, self._pool)

    def _stream(
        self, images: Iterable[Source], batch_size: int | None, workers: int | None, *, frames: bool = False
    ) -> Iterator[Prediction]:
        """frames: True takes every frame of a DICOM file as an image."""
        check_process(self._process)
        rows = Rows(self.model.input.shape)  # freed with the stream
        read = partial(prepare_frames, **self._prepare_options, most=None if frames else 1)
        predict = partial(self._answers.of, spare=rows, logits_of=self._run_engine)
        size, workers = batch_size or self._serving.batch_size, workers or self._serving.settings.workers
        for batch in predictions(images, read, predict, batch_size=size, workers=workers):
            if self._audit is not None:
                self._audit.record_all(batch)
            for result, _ in batch:
                yield result
                check_process(self._process)  # a fork inside the caller's loop must not receive the rest of the batch

    def _run_engine(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        with self._calls:  # a further call would compete for the same threads
            return self._serving.timed(images)
