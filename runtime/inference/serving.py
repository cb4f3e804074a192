"""`Serving`: the loaded engine, and the bundle's information on its model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stageproof.runtime.artifacts.verified_bytes import ModelFile
from stageproof.runtime.backends import Backend
from stageproof.runtime.bundle.manifest import Check, Golden, ModelInfo
from stageproof.runtime.errors import BackendError
from stageproof.runtime.guard.ood_guard import Guard
from stageproof.runtime.inference.engine_settings import EngineSettings
from stageproof.runtime.inference.selection import Candidate


@dataclass(frozen=True)
class Serving:
    """The loaded engine, and the bundle's information on its model."""

    model: ModelInfo
    engine: Backend
    name: str
    """Name of the backend."""
    precision: str
    artifact: Path
    settings: EngineSettings
    """What the engine was loaded with."""
    check: Check | None = None
    """The export's measurements of this artifact in this backend; None for a lone artifact."""
    bundle: Path | None = None
    """None for a lone artifact, which has no guard and no golden images."""
    digest: str = ""
    """SHA-256, hexadecimal, of the manifest, or of the lone artifact."""
    reread: Callable[[], ModelFile] | None = None
    """Reads and verifies the artifact's bytes again; None for a lone artifact."""
    read: Callable[[Golden], bytes] | None = None
    """Reads the verified bytes of a golden image."""
    guard: Guard | None = None
    golden: tuple[Golden, ...] = ()
    labels_from: str | None = None
    """Origin of the class order, one of `runtime.labels.LABELS_FROM`; None if not recorded."""
    considered: Sequence[Candidate] = ()
    unusable_artifacts: Sequence[str] = ()
    """One line for each artifact that is not a candidate."""

    @property
    def batch_size(self) -> int:
        """Images per call of the engine in a stream."""
        return self.settings.batch_size(self.model.input.shape)

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits of validated (N, C, H, W) float32 images.

        Raises BackendError if the engine fails, or returns another shape or non-finite values.
        """
        try:
            result = self.engine.run(images)
        except Exception as error:  # engines raise exception classes of their own, besides RuntimeError
            raise BackendError(f"{self.engine.engine} failed on a batch of {len(images)}: {error}") from error
        expected = (len(images), len(self.model.labels))
        if result.shape != expected:
            raise BackendError(
                f"{self.artifact} returned logits of shape {result.shape}, expected {expected}: one per class. Export "
                "again."
            )
        if not np.isfinite(result).all():
            raise BackendError(
                f"{self.artifact} in {self.engine.engine} returned logits that are not finite. Use another precision "
                "or backend, or export again."
            )
        return result

    def timed(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        """As `logits`, with the time in milliseconds."""
        start = time.perf_counter()
        logits = self.logits(images)
        return logits, (time.perf_counter() - start) * 1e3


def warm_up(serving: Serving) -> None:
    """Run once on a black image: engines complete their setup in the first run, and fail now if they cannot run."""
    serving.logits(np.zeros((1, *serving.model.input.shape), np.float32))
    _give_back_memory()


def _give_back_memory() -> None:
    """Return freed memory to the system (glibc's malloc_trim): engines parse a model into a second copy, whose freed
    pages glibc keeps. For a ResNet50 in float32 this halves the memory of the process. No effect without glibc.
    """
    import ctypes

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
