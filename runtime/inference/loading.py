"""Loading of a bundle or a lone artifact: verification, choice of artifact and backend, loading, warm-up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from stageproof.runtime import backends
from stageproof.runtime.artifacts.inspection import standalone_code_message, untrusted_message
from stageproof.runtime.artifacts.metadata import descriptions
from stageproof.runtime.artifacts.verified_bytes import CODE, ModelFile
from stageproof.runtime.backends import Backend
from stageproof.runtime.bundle.manifest import FILE, TENSOR, Check, Golden, ModelInfo, manifest_bytes, parse_manifest
from stageproof.runtime.bundle.trust import DEFAULT_TRUST, Trust
from stageproof.runtime.bundle.verify import Sealed
from stageproof.runtime.errors import BackendError, BackendUnavailable, BundleError, InputError, TrustError
from stageproof.runtime.guard.ood_guard import Guard
from stageproof.runtime.images.source_bytes import MAX_FILE_BYTES
from stageproof.runtime.inference.selection import (
    Candidate,
    built_for,
    candidates,
    files_to_load,
    mark_untrusted,
    unusable_artifacts,
    why_unavailable,
)
from stageproof.runtime.inference.tuning import rank_candidates
from stageproof.runtime.labels import LABELS_FROM
from stageproof.runtime.serialization.json_fields import parse
from stageproof.runtime.system.caller import warn
from stageproof.runtime.text.hints import command, program


@dataclass(frozen=True)
class Serving:
    """The loaded engine, and the bundle's information on its model."""

    model: ModelInfo
    engine: Backend
    name: str
    """Name of the backend."""
    precision: str
    artifact: Path
    device: str
    threads: int
    """CPU threads of the engine."""
    check: Check | None = None
    """The export's measurements of this artifact in this backend; None for a lone artifact."""
    bundle: Path | None = None
    """None for a lone artifact, which has no guard and no golden images."""
    digest: str = ""
    """SHA-256, hexadecimal, of the manifest, or of the lone artifact."""
    again: Callable[[int], Backend] | None = None
    """(concurrent calls) → the same artifact, verified and loaded again; None for a lone artifact."""
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


def open_bundle(
    bundle: Path,
    backend: str | None,
    precision: str | None,
    device: str,
    threads: int,
    trust: Trust = DEFAULT_TRUST,
    tune: bool | str | os.PathLike[str] = False,
) -> Serving:
    """The fastest artifact of a verified bundle that loads and runs here.

    trust: the caller's trust options. Artifacts that contain code are tried last, and only if trusted.
    tune: False ranks by the latencies measured at export; True measures on this machine; a path also caches the
    measurements (`runtime.inference.tuning`).

    An artifact that fails in an installed engine is skipped with a RuntimeWarning, unless `backend` is given: then its
    error is raised. Raises BundleError, TrustError, BackendUnavailable, BackendError, InputError.
    """
    content = manifest_bytes(bundle)
    digest = trust.assert_bundle(bundle, content)
    manifest = parse_manifest(content, bundle / FILE)
    sealed = Sealed(bundle, manifest, files_to_load(manifest, backend, precision, device, trust))
    guard = Guard.of(sealed.read(manifest.guard), bundle / manifest.guard.file) if manifest.guard else None
    considered = candidates(manifest, backend, precision)
    mark_untrusted(considered, bundle, trust, named=backend is not None or precision is not None)

    load = partial(_load, sealed, device, threads, trust.code)

    def start(candidate: Candidate) -> Serving:
        artifact = candidate.artifact
        serving = Serving(
            manifest.model,
            load(candidate),
            candidate.check.backend,
            artifact.precision,
            bundle / artifact.file,
            device,
            threads,
            candidate.check,
            bundle,
            digest,
            partial(load, candidate),
            partial(sealed.model, artifact),
            partial(sealed.read, most=MAX_FILE_BYTES),
            guard,
            manifest.golden,
            manifest.labels_from,
            considered,
            unusable_artifacts(manifest),
        )
        warm_up(serving)
        return serving

    if tune:
        cache = None if tune is True else Path(tune)
        considered = rank_candidates(manifest, considered, load, f"{device}, {threads} threads", cache)
    failed: list[str] = []
    for candidate in considered:
        artifact, name = candidate.artifact, candidate.check.backend
        if candidate.untrusted_code:
            continue
        if backend is None and (reason := why_unavailable(name, device)):
            candidate.verdict = reason
            continue
        try:
            serving = start(candidate)
        except (BackendUnavailable, BackendError) as error:
            if backend is not None:
                raise
            candidate.verdict = f"does not run here: {error}{built_for(artifact)}"
            failed.append(str(candidate))
            continue
        candidate.verdict = f"in use, {serving.engine.engine}"
        if failed:
            warn(
                f"{'; '.join(failed)} Using {artifact.file} in {name} instead. To rebuild the fastest artifact for "
                f"this machine, run: {command('export', '--rebuild', '--out', bundle)}"
            )
        return serving
    raise _no_candidate_runs(bundle, considered, unusable_artifacts(manifest), device)


def _load(
    sealed: Sealed, device: str, threads: int, trust_code: bool, candidate: Candidate, at_once: int = 1
) -> Backend:
    """The candidate's verified artifact, loaded in its backend for `at_once` concurrent calls."""
    artifact = candidate.artifact
    return backends.load(
        candidate.check.backend,
        sealed.model(artifact),
        precision=artifact.precision,
        device=device,
        threads=threads,
        at_once=at_once,
        trust_code=trust_code,
    )


def _no_candidate_runs(
    bundle: Path, considered: Sequence[Candidate], others: Sequence[str], device: str
) -> TrustError | BackendUnavailable:
    """The error if no candidate runs here: TrustError if one would run with trust_code=True."""
    reasons = " ".join(f"{reason.rstrip('.')}." for reason in (*map(str, considered), *others))
    usable = (one for one in considered if one.untrusted_code and not why_unavailable(one.check.backend, device))
    if held := next(usable, None):
        what = untrusted_message(bundle / held.artifact.file, held.artifact.format)
        return TrustError(f"No other artifact of {bundle} can run here. {what} {reasons}")
    return BackendUnavailable(f"No artifact of {bundle} can run here. {reasons}")


def open_artifact(
    path: Path, backend: str | None, precision: str | None, device: str, threads: int, trust: Trust = DEFAULT_TRUST
) -> Serving:
    """A lone exported artifact, with its labels and input size from its metadata. Raises TrustError for formats that
    contain code, even if trusted: without a manifest, the file cannot be verified."""
    if precision is not None:
        raise InputError(
            f"precision is {precision!r}, but {path} is a single file, which has one precision. Give a bundle, or no "
            "precision."
        )
    kind = backends.SUFFIXES.get(path.suffix)
    if kind is None:
        raise BundleError(
            f"{path} is not an artifact that this runtime reads ({', '.join(backends.SUFFIXES)}). Give a bundle "
            f"folder, or a file that {program('export')} wrote."
        )
    runs = [name for name, module in backends.BACKENDS.items() if kind in module.FORMATS]
    if backend is not None and backends.backend_module(backend).NAME not in runs:
        raise InputError(f"{backend!r} does not run {path.suffix} files. These do: {', '.join(runs)}.")
    reasons = {name: why_unavailable(name, device) for name in runs}
    usable = [name for name in runs if reasons[name] is None]
    if backend is None and not usable:
        raise BackendUnavailable(
            f"No backend here runs {path.suffix} files: "
            + "; ".join(f"{n!r} {reason}" for n, reason in reasons.items())
        )
    name = backend or usable[0]
    if kind in CODE:
        raise TrustError(standalone_code_message(path, kind))
    model = ModelFile.read(path)
    digest = model.digest
    trust.assert_lone(path, digest)
    _assert_takes_tensors(model, kind)
    engine = backends.load(name, model, precision="unknown", device=device, threads=threads)
    if engine.metadata is None:
        raise BundleError(
            f"{path} has no metadata (labels, input size). Give the bundle that contains it, or export it with "
            f"{program('export')}."
        )
    described = parse(engine.metadata, str(path))
    origin = described.get("labels_from")
    serving = Serving(
        ModelInfo.from_json(engine.metadata, str(path)),
        engine,
        name,
        "unknown",
        path,
        device,
        threads,
        digest=digest,
        labels_from=origin if origin in LABELS_FROM else None,
    )
    warm_up(serving)
    return serving


def _assert_takes_tensors(model: ModelFile, kind: str) -> None:
    """Raise BundleError for an artifact with built-in preprocessing."""
    for described in descriptions(model.path, kind, model.content) or []:
        takes = parse(described, str(model)).get("takes", TENSOR)
        if takes != TENSOR:
            raise BundleError(
                f"{model} takes {takes}: it has built-in preprocessing, for programs without this library. Give its "
                "bundle, or the artifact without built-in preprocessing."
            )


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
