"""From a bundle or a lone artifact to the engine that serves: verified, chosen, loaded and warmed up."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from runtime import backends
from runtime.backends import Backend
from runtime.caller import warn
from runtime.choice import Candidate, built_for, candidates, never_served
from runtime.errors import BackendError, BackendUnavailable, BundleError, InputError
from runtime.fields import parse
from runtime.guard import Guard
from runtime.hints import command
from runtime.integrity import verified
from runtime.labels import LABELS_FROM
from runtime.manifest import TENSOR, Artifact, Check, Document, Golden, Manifest, ModelInfo
from runtime.tuning import ranked


@dataclass(frozen=True)
class Serving:
    """The one engine that answers, and what the bundle says of the model in it."""

    model: ModelInfo
    engine: Backend
    name: str
    """Of the backend."""
    precision: str
    artifact: Path
    device: str
    threads: int
    """CPU threads that the engine was given."""
    check: Check | None = None
    """What export measured of this artifact in this backend; None for a lone artifact."""
    bundle: Path | None = None
    """None for a lone artifact, which has no guard and no golden images."""
    files: tuple[Artifact | Document, ...] = ()
    """The artifact as the manifest names it, and what it needs beside it."""
    guard: Guard | None = None
    golden: tuple[Golden, ...] = ()
    labels_from: str | None = None
    """Where the order of the classes comes from, one of `runtime.labels.LABELS_FROM`; None where it is not recorded."""
    considered: Sequence[Candidate] = ()
    never_served: Sequence[str] = ()
    """One line for each artifact that was not even a candidate."""

    def logits(self, images: np.ndarray) -> np.ndarray:
        """(N, classes) float32 logits of validated (N, C, H, W) float32 images.

        Raises BackendError when the engine fails, or answers with another shape or with what is not a number.
        """
        try:
            result = self.engine.run(images)
        except Exception as error:  # engines raise classes of their own; RuntimeError is only the commonest
            raise BackendError(f"{self.engine.engine} failed on a batch of {len(images)}: {error}") from error
        expected = (len(images), len(self.model.labels))
        if result.shape != expected:
            raise BackendError(
                f"{self.artifact} gave logits of shape {result.shape}, expected {expected}: one a class. Export again."
            )
        if not np.isfinite(result).all():
            raise BackendError(f"{self.artifact} in {self.engine.engine} gave logits that are not finite numbers.")
        return result

    def timed(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        """As `logits`, and the milliseconds that they took."""
        start = time.perf_counter()
        logits = self.logits(images)
        return logits, (time.perf_counter() - start) * 1e3


def open_bundle(
    bundle: Path,
    backend: str | None,
    precision: str | None,
    device: str,
    threads: int,
    tune: bool | str | os.PathLike[str] = False,
) -> Serving:
    """The artifact of a verified bundle that was fastest among those that load and run here.

    tune: False goes by the times of the export; True measures here, and a path remembers that (`runtime.tuning`).

    An artifact whose engine is here and that does not run is passed over with a RuntimeWarning, unless its backend was
    asked for by name: then its own error is raised. Raises BundleError, BackendUnavailable, BackendError, InputError.
    """
    manifest = verified(bundle)
    guard = Guard.read(bundle / manifest.guard.file) if manifest.guard else None
    considered = candidates(manifest, backend, precision)

    def load(candidate: Candidate) -> Backend:
        artifact, name = candidate.artifact, candidate.check.backend
        return backends.load(name, bundle / artifact.file, precision=artifact.precision, device=device, threads=threads)

    if tune:
        cache = None if tune is True else Path(tune)
        considered = ranked(manifest, considered, load, f"{device}, {threads} threads", cache)
    failed: list[str] = []
    for candidate in considered:
        artifact, name = candidate.artifact, candidate.check.backend
        if backend is None and (reason := backends.missing(name) or backends.elsewhere(name, device)):
            candidate.verdict = reason
            continue
        path = bundle / artifact.file
        try:
            engine = load(candidate)
            serving = Serving(
                manifest.model,
                engine,
                name,
                artifact.precision,
                path,
                device,
                threads,
                candidate.check,
                bundle,
                _files(manifest, artifact),
                guard,
                manifest.golden,
                manifest.labels_from,
                considered,
                never_served(manifest),
            )
            warm_up(serving)
        except (BackendUnavailable, BackendError) as error:
            if backend is not None:
                raise
            candidate.verdict = f"does not run here: {error}{built_for(artifact)}"
            failed.append(str(candidate))
            continue
        candidate.verdict = f"serves, {engine.engine}"
        if failed:
            warn(
                f"{'; '.join(failed)} Serving {artifact.file} in {name} instead. To make what was measured fastest fit "
                f"this machine, build it again here: {command('export', '--rebuild', '--out', bundle)}"
            )
        return serving
    reasons = " ".join(f"{reason.rstrip('.')}." for reason in (*map(str, considered), *never_served(manifest)))
    raise BackendUnavailable(f"No artifact of {bundle} can serve here. {reasons}")


def _files(manifest: Manifest, artifact: Artifact) -> tuple[Artifact | Document, ...]:
    weights = PurePosixPath(artifact.file).with_suffix(".bin").as_posix()  # OpenVINO's, beside its .xml
    return (artifact, *(document for document in manifest.documents if document.file == weights))


def open_artifact(path: Path, backend: str | None, precision: str | None, device: str, threads: int) -> Serving:
    """A lone file that python -m export wrote, which carries labels and input size of its own."""
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
    lacking = {name: backends.missing(name) or backends.elsewhere(name, device) for name in runs}
    usable = [name for name in runs if lacking[name] is None]
    if backend is None and not usable:
        raise BackendUnavailable(
            f"Nothing here runs {path.suffix} files: " + "; ".join(f"{n!r} {reason}" for n, reason in lacking.items())
        )
    name = backend or usable[0]
    engine = backends.load(name, path, precision="unknown", device=device, threads=threads)
    if engine.metadata is None:
        raise BundleError(
            f"{path} carries no labels and input size of its own. Give the bundle it came from, or export it with "
            "python -m export."
        )
    described = parse(engine.metadata, str(path))
    takes = described.get("takes", TENSOR)
    if takes != TENSOR:
        raise BundleError(
            f"{path} takes {takes}: it does its own preprocessing, for programs without this library. Give its bundle, "
            "or the artifact that was exported beside it."
        )
    origin = described.get("labels_from")
    serving = Serving(
        ModelInfo.from_json(engine.metadata, str(path)),
        engine,
        name,
        "unknown",
        path,
        device,
        threads,
        labels_from=origin if origin in LABELS_FROM else None,
    )
    warm_up(serving)
    return serving


def warm_up(serving: Serving) -> None:
    """One run on black: engines finish their setup in the first, and one that cannot run here says so now."""
    serving.logits(np.zeros((1, *serving.model.input.shape), np.float32))
    _give_back_memory()


def _give_back_memory() -> None:
    """Hand to the system what loading has freed: engines parse a model into a second copy, and glibc keeps its pages.

    For a ResNet50 in float32 that is half of the process. Elsewhere than on glibc nothing happens.
    """
    import ctypes

    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return
    trim(0)
