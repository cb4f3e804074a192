"""`Predictor`: from what a user has (a file, bytes, an array) to a `Prediction`, over whichever engine is here."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from runtime import backends
from runtime.choice import Candidate, candidates
from runtime.errors import BackendError, BackendUnavailable, BundleError, ImageError, InputError
from runtime.images import ImageSource, read_image
from runtime.integrity import verified
from runtime.labels import clinical_order
from runtime.manifest import ModelInfo
from runtime.prediction import Prediction, Timings, stage_of
from runtime.preprocess import preprocess
from runtime.threads import available_cpus

DEFAULT_BUNDLE = "bundle"
"""Where `python -m export` writes unless told otherwise."""


class Predictor:
    """Four-stage prediction for brain-MRI slices. For research; not a medical device.

    path: a bundle folder, or a lone artifact (`.onnx`, `.ts`) that python -m export wrote.
    backend: ``openvino``, ``onnx`` or ``torchscript``. Named, it never falls back to another; None takes the fastest
        one that passed parity at export and loads here.
    precision: ``fp32``, …; None takes any.
    device: ``cpu`` or ``cuda``.
    threads: CPU threads for the engine; None takes all this process may use.

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
    ) -> None:
        if device not in ("cpu", "cuda"):
            raise InputError(f"device is {device!r}, expected 'cpu' or 'cuda'.")
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}, expected at least 1, or None for all this process may use.")
        self._device = device
        self._threads = threads or available_cpus()
        self._considered: list[Candidate] = []
        where = Path(path)
        if where.is_file():
            self._open_artifact(where, backend, precision)
        elif where.is_dir():
            self._open_bundle(where, backend, precision)
        else:
            raise BundleError(f"{where} does not exist. Make a bundle with: python -m export --out {where}")
        self._labels = self.model.labels

    model: ModelInfo
    """Architecture, digest, labels, `InputSpec` and temperature."""
    backend: str
    """Name of the backend that serves."""
    precision: str
    """Precision of the artifact that serves; ``unknown`` for a lone artifact."""
    artifact: Path
    """The file that serves."""

    @property
    def engine(self) -> str:
        """Name and version of the engine that serves."""
        return self._backend.engine

    def explain(self) -> list[str]:
        """One line for each artifact and backend considered, in order of preference, with the reason."""
        return [str(candidate) for candidate in self._considered]

    def predict(self, image: ImageSource) -> Prediction:
        """The prediction for one image: path, encoded bytes, file object, PIL image, or uint8 array (H, W[, 3]).

        Raises ImageError when it cannot be read as one still image.
        """
        return self._predict([image])[0]

    def predict_batch(self, images: Iterable[ImageSource], batch_size: int = 32) -> list[Prediction]:
        """One prediction for each image, in order, run `batch_size` at a time.

        Raises ImageError, naming the position, for the first image that cannot be read.
        """
        if isinstance(images, (str, bytes, bytearray, os.PathLike)):
            raise InputError(f"images is one {type(images).__name__}, expected several. Use predict() for one image.")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, expected at least 1.")
        everything = list(images)
        results: list[Prediction] = []
        for start in range(0, len(everything), batch_size):
            results += self._predict(everything[start : start + batch_size], start)
        return results

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits, before temperature, of (N, C, H, W) float32 images from `preprocess`."""
        spec = self.model.input
        expected = (spec.channels, spec.height, spec.width)
        if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != expected or not len(images):
            raise InputError(
                f"images is {images.dtype} of shape {images.shape}; this bundle expects float32 (N, "
                f"{', '.join(map(str, expected))}) with N at least 1, as runtime.preprocess gives it."
            )
        try:
            result = self._backend.run(np.ascontiguousarray(images))
        except RuntimeError as error:
            raise BackendError(f"{self.engine} failed on a batch of {len(images)}: {error}") from error
        if result.shape != (len(images), len(self._labels)):
            raise BackendError(
                f"{self.artifact} gave logits of shape {result.shape} for {len(images)} images and "
                f"{len(self._labels)} classes. Export again."
            )
        return result

    def _predict(self, sources: Sequence[ImageSource], first: int = 0) -> list[Prediction]:
        spec = self.model.input
        batch = np.empty((len(sources), spec.channels, spec.height, spec.width), np.float32)
        spent: list[tuple[float, float]] = []
        for position, source in enumerate(sources):
            start = time.perf_counter()
            try:
                image = read_image(source)
            except ImageError as error:
                if len(sources) == 1 and first == 0:
                    raise
                raise ImageError(f"image {first + position} of the batch: {error}") from error
            read = time.perf_counter()
            batch[position] = preprocess(image, spec)
            spent.append((read - start, time.perf_counter() - read))
        start = time.perf_counter()
        logits = self.logits(batch)
        inference = (time.perf_counter() - start) / len(sources)
        return [
            self._prediction(row, Timings(read * 1e3, prepared * 1e3, inference * 1e3))
            for row, (read, prepared) in zip(probabilities(logits, self.model.temperature), spent, strict=True)
        ]

    def _prediction(self, row: np.ndarray, timings: Timings) -> Prediction:
        by_label = dict(zip(self._labels, row.tolist(), strict=True))
        label = self._labels[int(row.argmax())]
        return Prediction(
            label=label,
            cdr=stage_of(label),
            probability=by_label[label],
            probabilities={name: by_label[name] for name in clinical_order(self._labels)},
            backend=self.backend,
            precision=self.precision,
            model_digest=self.model.digest,
            timings=timings,
        )

    def _open_bundle(self, bundle: Path, backend: str | None, precision: str | None) -> None:
        manifest = verified(bundle)
        self.model = manifest.model
        self._considered = candidates(manifest, backend, precision)
        for candidate in self._considered:
            name = candidate.check.backend
            if (reason := backends.missing(name)) and backend is None:
                candidate.verdict = reason
                continue
            path = bundle / candidate.artifact.file
            try:
                self._serve(name, path, candidate.artifact.precision)
            except (BackendUnavailable, BackendError) as error:
                if backend is not None:
                    raise
                candidate.verdict = f"does not load here: {error}"
                continue
            candidate.verdict = f"serves, {self.engine}"
            return
        raise BackendUnavailable(
            f"No artifact of {bundle} can serve here. " + " ".join(f"{line}." for line in self.explain())
        )

    def _open_artifact(self, path: Path, backend: str | None, precision: str | None) -> None:
        if precision is not None:
            raise InputError(f"{path} is one file, whose precision cannot be chosen. Give a bundle, or no precision.")
        kind = backends.SUFFIXES.get(path.suffix)
        if kind is None:
            raise BundleError(
                f"{path} is not an artifact this runtime knows ({', '.join(backends.SUFFIXES)}). Give a bundle folder, "
                "or a file that python -m export wrote."
            )
        runs = [name for name, module in backends.BACKENDS.items() if kind in module.FORMATS]
        if backend is not None and backends.backend_module(backend).NAME not in runs:
            raise InputError(f"{backend!r} does not run {path.suffix} files. These do: {', '.join(runs)}.")
        usable = [name for name in runs if backends.missing(name) is None]
        if backend is None and not usable:
            raise BackendUnavailable(
                f"Nothing here runs {path.suffix} files: " + "; ".join(f"{n!r} {backends.missing(n)}" for n in runs)
            )
        self._serve(backend or usable[0], path, "unknown")
        if self._backend.metadata is None:
            raise BundleError(
                f"{path} carries no labels and input size of its own. Give the bundle it came from, or export it with "
                "python -m export."
            )
        self.model = ModelInfo.from_json(self._backend.metadata, str(path))

    def _serve(self, name: str, path: Path, precision: str) -> None:
        self._backend = backends.load(name, path, precision=precision, device=self._device, threads=self._threads)
        self.backend, self.precision, self.artifact = name, precision, path


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(N, classes) float64 softmax of logits / temperature; rows sum to 1."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    exponential = np.exp(scaled)
    result: np.ndarray = exponential / exponential.sum(axis=1, keepdims=True)
    return result
