"""Loading of a bundle: verification, choice of artifact and backend, loading of the engine, warm-up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from stageproof.runtime import backends
from stageproof.runtime.artifacts.inspection import untrusted_message
from stageproof.runtime.backends import Backend
from stageproof.runtime.bundle.manifest import FILE, Manifest, manifest_bytes, parse_manifest
from stageproof.runtime.bundle.trust import DEFAULT_TRUST, Trust
from stageproof.runtime.bundle.verify import Sealed
from stageproof.runtime.errors import BackendError, BackendUnavailable, TrustError
from stageproof.runtime.guard.ood_guard import Guard
from stageproof.runtime.images.source_bytes import MAX_FILE_BYTES
from stageproof.runtime.inference.engine_settings import EngineSettings
from stageproof.runtime.inference.selection import (
    Candidate,
    built_for,
    candidates,
    files_to_load,
    mark_untrusted,
    unusable_artifacts,
    why_unavailable,
)
from stageproof.runtime.inference.serving import Serving, warm_up
from stageproof.runtime.inference.tuning import rank_candidates
from stageproof.runtime.system.caller import warn
from stageproof.runtime.text.hints import command


def open_bundle(
    bundle: Path,
    settings: EngineSettings,
    trust: Trust = DEFAULT_TRUST,
    tune: bool | str | os.PathLike[str] = False,
) -> Serving:
    """The fastest artifact of a verified bundle that loads and runs here.

    trust: the caller's trust options. Artifacts that contain code are tried last, and only if trusted.
    tune: False ranks by the latencies measured at export; True measures on this machine; a path also caches the
    measurements (`runtime.inference.tuning`).

    An artifact that fails in an installed engine is skipped with a RuntimeWarning, unless a backend is required: then
    its error is raised. Raises BundleError, TrustError, BackendUnavailable, BackendError, InputError.
    """
    verified = _verify(bundle, settings, trust)
    considered = candidates(verified.manifest, settings.backend, settings.precision)
    mark_untrusted(considered, bundle, trust, named=settings.named)
    load = partial(_load_engine, verified.sealed, settings, trust)
    if tune:
        cache = None if tune is True else Path(tune)
        considered = rank_candidates(verified.manifest, considered, load, settings, cache)
    failed: list[str] = []
    for candidate in considered:
        if not _can_be_tried(candidate, settings):
            continue
        try:
            serving = _serving(verified, candidate, load(candidate), settings, considered)
            warm_up(serving)
        except (BackendUnavailable, BackendError) as error:
            if settings.backend is not None:
                raise
            candidate.verdict = f"does not run here: {error}{built_for(candidate.artifact)}"
            failed.append(str(candidate))
            continue
        candidate.verdict = f"in use, {serving.engine.engine}"
        if failed:
            _warn_of_failures(bundle, failed, candidate)
        return serving
    raise _no_candidate_runs(bundle, considered, unusable_artifacts(verified.manifest), settings.device)


@dataclass(frozen=True)
class _VerifiedBundle:
    """A bundle whose manifest is trusted and whose files are those of the manifest."""

    path: Path
    digest: str
    """SHA-256 of the manifest."""
    manifest: Manifest
    sealed: Sealed
    guard: Guard | None


def _verify(bundle: Path, settings: EngineSettings, trust: Trust) -> _VerifiedBundle:
    """The bundle after verification: first the manifest (digest or signature), then every file, then the guard, which
    is read from its verified bytes. Raises BundleError, TrustError."""
    content = manifest_bytes(bundle)
    digest = trust.assert_bundle(bundle, content)
    manifest = parse_manifest(content, bundle / FILE)
    keep = files_to_load(manifest, settings.backend, settings.precision, settings.device, trust)
    sealed = Sealed(bundle, manifest, keep)
    guard = Guard.of(sealed.read(manifest.guard), bundle / manifest.guard.file) if manifest.guard else None
    return _VerifiedBundle(bundle, digest, manifest, sealed, guard)


def _load_engine(sealed: Sealed, settings: EngineSettings, trust: Trust, candidate: Candidate) -> Backend:
    """The candidate's backend with the candidate's verified artifact."""
    return backends.load(
        candidate.check.backend,
        sealed.model(candidate.artifact),
        precision=candidate.artifact.precision,
        device=settings.device,
        threads=settings.threads,
        concurrent_calls=settings.concurrent_calls,
        trust_code=trust.code,
    )


def _can_be_tried(candidate: Candidate, settings: EngineSettings) -> bool:
    """Whether to load the candidate: not if it is untrusted, nor, unless its backend is required, if its engine is not
    installed or lacks the device. The reason becomes its verdict."""
    if candidate.untrusted_code:
        return False
    reason = why_unavailable(candidate.check.backend, settings.device) if settings.backend is None else None
    if reason:
        candidate.verdict = reason
    return reason is None


def _serving(
    verified: _VerifiedBundle,
    candidate: Candidate,
    engine: Backend,
    settings: EngineSettings,
    considered: Sequence[Candidate],
) -> Serving:
    """The loaded engine with the bundle's information."""
    manifest, artifact = verified.manifest, candidate.artifact
    return Serving(
        model=manifest.model,
        engine=engine,
        name=candidate.check.backend,
        precision=artifact.precision,
        artifact=verified.path / artifact.file,
        settings=settings,
        check=candidate.check,
        bundle=verified.path,
        digest=verified.digest,
        reread=partial(verified.sealed.model, artifact),
        read=partial(verified.sealed.read, most=MAX_FILE_BYTES),
        guard=verified.guard,
        golden=manifest.golden,
        labels_from=manifest.labels_from,
        considered=considered,
        unusable_artifacts=unusable_artifacts(manifest),
    )


def _warn_of_failures(bundle: Path, failed: Sequence[str], used: Candidate) -> None:
    """Warn that faster artifacts failed, and how to rebuild them."""
    warn(
        f"{'; '.join(failed)} Using {used.artifact.file} in {used.check.backend} instead. To rebuild the fastest "
        f"artifact for this machine, run: {command('export', '--rebuild', '--out', bundle)}"
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
