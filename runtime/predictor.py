"""`Predictor`: from what a user has (a file, bytes, an array) to a `Prediction`, over whichever engine is here."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from operator import length_hint
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.bundle.identity import OPTIONS, absolute, restored
from stageproof.runtime.bundle.manifest import DEFAULT_BUNDLE, ModelInfo
from stageproof.runtime.bundle.trust import Trust
from stageproof.runtime.decoding.pool import decoding_pool
from stageproof.runtime.errors import BackendError, InputError, shed
from stageproof.runtime.headers.limits import MAX_PIXELS
from stageproof.runtime.images.reader import Source
from stageproof.runtime.inference.answers import Answers
from stageproof.runtime.inference.arguments import (
    at_least_one,
    check_options,
    check_pixels,
    existing,
    opened_log,
    several,
    slices_of,
)
from stageproof.runtime.inference.input_batches import Prepared, Rows, prepare, prepare_frames
from stageproof.runtime.inference.lanes import LANES, SHORT, in_lanes
from stageproof.runtime.inference.loading import open_artifact, open_bundle
from stageproof.runtime.inference.self_test import SelfTest, self_test
from stageproof.runtime.inference.streaming import Batches
from stageproof.runtime.prediction import Prediction, StudyPrediction, study_by
from stageproof.runtime.softmax import probabilities
from stageproof.runtime.system.caller import warn
from stageproof.runtime.system.cpus import available_cpus
from stageproof.runtime.system.forks import check_process
from stageproof.runtime.text.hints import unguarded

__all__ = ["Predictor", "probabilities"]


class Predictor:
    """Four-stage prediction for brain-MRI slices. For research; not a medical device.

    Any number of threads may share one Predictor; a process needs its own. After a fork it raises ForkError; pickled,
    as for a worker process, it is its path and options, and loads there if the bundle is still the same. It opens no
    connection and writes nothing but `audit` and `tune`.

    path: a bundle folder, or a lone artifact of data (`.onnx`, `.xml`, `.safetensors`) that an export wrote.
    backend: ``openvino``, ``onnx``, ``tensorrt``, ``torchscript``, ``torch-export`` or ``pytorch``. Named, it never
        falls back to another; None takes the fastest one that passed parity at export and runs here.
    precision: ``fp32``, …; None takes any.
    device: ``cpu``, ``cuda``, or ``tensorrt``: CUDA through TensorRT, by an engine file or by ONNX Runtime's provider.
        What runs there runs there as a whole: nothing falls back to another device.
    threads: CPU threads for the engine; None takes all this process may use.
    guard: False lets every readable image through to the model, for measurements: a bundle's guard is there to be used.
        A lone artifact has none, which is a RuntimeWarning unless False says that this is known.
    abstain_below: answer only from this probability on, slices and studies; None takes what the bundle says of each.
    self_test: True replays the bundle's golden images first, and raises BackendError where they do not agree.
    tune: True times every artifact on this machine and serves the fastest; the path of a JSON file also remembers the
        times there, for this bundle and machine.
    audit: a file to which every prediction adds a line without patient data (`runtime.audit`), before it is returned.
    audit_key: file with the key of `audit`; None takes that of `runtime.audit.chain.key_path`, LOG.key by default.
    isolate: decode files in processes with limits, which end with the last Predictor (docs/SECURITY-DECODING.md); False
        for hosts that are confined themselves. Arrays and PIL images are taken as they are.
    max_pixels: images, or frames, of more pixels are an ImageError.
    trust_code: also load artifacts of a bundle that carry code (`.ts`, `.pt2`, `.engine`), after all others.
    trusted_key: a public key (PEM): load only a bundle that its owner signed. Needs the extra verify.
    trusted_digest: load only what has this `digest`: SHA-256 of the bundle's manifest, or of the lone artifact.

    Raises TrustError for a bundle or file that is not trusted, BundleError for one that was changed,
    BackendUnavailable when no engine here can serve it, BackendError when the engine fails, AuditError when the log
    cannot be written, IsolationError where no process can be started to decode in, InputError for senseless arguments.
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
        audit_key: str | os.PathLike[str] | None = None,
        isolate: bool = True,
        max_pixels: int = MAX_PIXELS,
        trust_code: bool = False,
        trusted_key: str | os.PathLike[str] | None = None,
        trusted_digest: str | None = None,
    ) -> None:
        self._process = os.getpid()
        check_options(device, threads, abstain_below, max_pixels)
        where = existing(path, tune=tune, audit=audit, audit_key=audit_key)
        trust = Trust.of(trust_code, trusted_key, trusted_digest)
        self._path = where.absolute()  # links are not resolved: a bundle is often replaced by turning one
        paths = (absolute(tune), absolute(audit), absolute(audit_key))
        limits, vouched = (isolate, max_pixels), (trust_code, absolute(trusted_key), trusted_digest)
        options = (backend, precision, device, threads, guard, abstain_below, self_test, *paths, *limits, *vouched)
        self._options = dict(zip(OPTIONS, options, strict=True))
        threads, cpus = threads or available_cpus(), available_cpus()
        self._lanes = max(LANES[0], min(LANES[1], cpus))
        self._audit = opened_log(audit, audit_key)
        self._pool = decoding_pool() if isolate else None
        given = (where, backend, precision, device, threads, trust)
        self._serving = open_artifact(*given) if where.is_file() else open_bundle(*given, tune)
        self._rows = Rows(self.model.input.shape)
        self._batches = Batches(self._serving)
        self._guard = self._serving.guard if guard else None
        self._max_pixels = max_pixels
        self._abstain_below = self.model.abstain_below if abstain_below is None else abstain_below
        self._answers = Answers(self.model, self.backend, self.precision, self._abstain_below, self.guarded)
        if guard and where.is_file():
            warn(unguarded(where))
        if self_test and not (result := self.self_test()).passed:
            raise BackendError(f"The self-test failed: {result}. Do not use {self.artifact} on this machine.")

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), str(self._path), self._options, self.digest)

    def __deepcopy__(self, memo: Any = None) -> Predictor:
        return self  # nothing of it changes, and threads share it

    __copy__ = __deepcopy__

    @property
    def path(self) -> Path:
        """The bundle or lone artifact that was given, absolute."""
        return self._path

    @property
    def digest(self) -> str:
        """SHA-256 of the bundle's manifest, which has those of all its files; of the file for a lone artifact."""
        return self._serving.digest

    @property
    def audit_anchor(self) -> str | None:
        """``N:DIGEST``, how far the audit log goes, to be kept elsewhere (`runtime.audit`); None without a log."""
        return None if self._audit is None else self._audit.anchor

    @property
    def model(self) -> ModelInfo:
        """Architecture, digest, labels, `InputSpec`, temperature, abstention threshold and rule for studies."""
        return self._serving.model

    @property
    def labels_from(self) -> str | None:
        """Where the order of the classes comes from, one of `runtime.labels.LABELS_FROM`; None: not recorded."""
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

    @property
    def isolation(self) -> tuple[str, ...]:
        """What the kernel limits or refuses to processes that decode; empty where files are decoded in this one."""
        return () if self._pool is None else self._pool.enforced()

    @property
    def _reading(self) -> tuple[Any, ...]:
        """What `prepare` takes beside the images."""
        digest = None if self._audit is None else self._audit.pixels
        return self.model.input, self._guard, digest, self._max_pixels, self._pool

    def explain(self) -> list[str]:
        """One line for each artifact and backend considered, in order of preference, with the reason."""
        return [*map(str, self._serving.considered), *self._serving.never_served]

    def predict(self, image: Source) -> Prediction:
        """The prediction for one image.

        image: a path, encoded bytes, file object, PIL image, or uint8 array (H, W[, 3]); DICOM files with one frame.
        Raises ImageError when it cannot be read as one still image. An image the guard rejects, or on which the model
        is not sure, is a result: see `Prediction.status`.
        """
        check_process(self._process)
        (prepared,) = prepare([image], *self._reading)
        if prepared.error is not None:
            del image  # which the traceback would keep
            raise shed(prepared.error)
        (result,) = self._answers.of([prepared], self._rows, self._serving.timed)
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
        check_process(self._process)
        at_least_one(batch_size=batch_size, workers=workers)
        return self._stream(several(images), batch_size, workers)

    def predict_study(self, images: Source | Iterable[Source], batch_size: int | None = None) -> StudyPrediction:
        """One patient's result from slices of one scan: by the bundle's rule for studies, or by the mean of the slices'
        probabilities where it has none, as in 0.1; `StudyPrediction.method` says which. Rejected slices do not count.

        images: as for `predict`; each frame of a multi-frame DICOM file counts as a slice. One file that holds all
            slices may be given as it is, and so may the folder that they are in (`runtime.images.folders.images_in`).
        Raises InputError where there is no image at all.
        """
        check_process(self._process)
        at_least_one(batch_size=batch_size)
        slices = list(self._stream(slices_of(images), batch_size, None, frames=True))
        if not slices:
            raise InputError("images is empty; expected the slices of one patient.")
        given = self._options["abstain_below"] is not None
        return study_by(self.model, slices, self._abstain_below if given else None)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits, before temperature, of (N, C, H, W) float32 images from `preprocess`."""
        check_process(self._process)
        check_pixels(images, self.model.input.shape)
        return self._serving.logits(np.ascontiguousarray(images))

    def self_test(self) -> SelfTest:
        """The bundle's golden images, replayed on this machine and compared with what the reference made of them.

        Raises InputError for a lone artifact, and for a bundle without golden images.
        """
        check_process(self._process)
        return self_test(self._serving, self._pool)

    def _stream(
        self, images: Iterable[Source], batch_size: int | None, workers: int | None, *, frames: bool = False
    ) -> Iterator[Prediction]:
        """frames: every frame of a DICOM file is an image."""
        known = length_hint(images)  # a stream that does not say so is a long one once it has shown it
        rows = Rows(self.model.input.shape)
        first = batch_size or self._batches.largest  # as long as a stream is not known to be a long one
        batches = itertools.count()

        def size(taken: int) -> int:
            return batch_size or self._batches.size(many=known > SHORT or taken >= SHORT)

        def prepared(sources: list[Source]) -> list[list[Prepared]]:
            how = self._reading
            return prepare_frames(sources, *how) if frames else [[one] for one in prepare(sources, *how)]

        def answers(several: list[list[Prepared]]) -> list[list[tuple[Prediction, str | None]]]:
            batch = list(itertools.chain.from_iterable(several))
            many = known > SHORT or next(batches) * first >= SHORT
            parts, logits_of = self._batches.parts(batch, len(several), first, many=many, learn=not batch_size)
            results = [result for part in parts for result in self._answers.of(part, rows, logits_of)]
            return [[(result, one.digest) for result, one in zip(results, batch, strict=True)]]

        check_process(self._process)
        for batch in in_lanes(images, prepared, answers, batch_size=size, lanes=workers or self._lanes):
            if self._audit is not None:
                self._audit.record_all(batch)
            for result, _ in batch:
                yield result
                check_process(self._process)  # before the next of a batch that a parent process has answered
