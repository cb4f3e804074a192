"""Choice of artifact and backend: the candidates in order of preference, each with the reason of its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime import backends
from stageproof.runtime.artifacts.inspection import untrusted_message
from stageproof.runtime.artifacts.verified_bytes import CODE
from stageproof.runtime.bundle.manifest import TENSOR, Artifact, Check, Manifest
from stageproof.runtime.bundle.trust import Trust
from stageproof.runtime.bundle.verify import weights_of
from stageproof.runtime.errors import InputError, TrustError
from stageproof.runtime.text.hints import command


@dataclass
class Candidate:
    """An artifact and a backend in which it passed parity at export."""

    artifact: Artifact
    check: Check
    verdict: str = "not tried: an earlier one is in use"
    untrusted_code: bool = False
    """Whether it contains code and is not trusted."""

    def __str__(self) -> str:
        name = f"{self.artifact.file} in {self.check.backend}"
        return f"{name} ({self.artifact.precision}, {self.check.latency_ms:.1f} ms): {self.verdict}"


def unusable_artifacts(manifest: Manifest) -> list[str]:
    """One line for each artifact of the bundle that is never loaded by Predictor, with the reason."""
    lines = []
    for artifact in manifest.artifacts:
        if artifact.takes != TENSOR:
            reason = f"takes {artifact.takes}, for programs without this library"
        elif not artifact.checks:
            reason = "no backend could check its parity at export"
        else:
            continue
        lines.append(f"{artifact.file} ({artifact.precision}): never used: {reason}{built_for(artifact)}")
    return lines


def built_for(artifact: Artifact) -> str:
    """``; built for KEY VALUE, …`` for a compiled artifact; otherwise empty."""
    needs = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in artifact.requires.items())
    return f"; built for {needs}" if needs else ""


def candidates(manifest: Manifest, backend: str | None, precision: str | None) -> list[Candidate]:
    """All pairs of artifact and backend that passed parity and match `backend` and `precision`, fastest at export
    first; artifacts that contain code last.

    Raises InputError, listing the available pairs, if none matches.
    """
    if backend is not None:
        backends.backend_module(backend)
    ours = [artifact for artifact in manifest.artifacts if artifact.takes == TENSOR]
    everything = [Candidate(artifact, check) for artifact in ours for check in artifact.checks]
    known = [c for c in everything if c.check.backend in backends.BACKENDS]
    fitting = [c for c in known if backend in (None, c.check.backend) and precision in (None, c.artifact.precision)]
    if not fitting:
        pairs = dict.fromkeys(f"{c.artifact.precision} in {c.check.backend}" for c in known)
        there = ", ".join(pairs) or "nothing"
        wanted = " and ".join(
            f"{k}={v!r}" for k, v in (("backend", backend), ("precision", precision)) if v is not None
        )
        raise InputError(
            f"The bundle has no artifact that passed parity for {wanted or 'the backends of this runtime'}. It has: "
            f"{there}. Export the required format with {command('export', '--to', 'FORMAT')}."
        )
    order = list(backends.BACKENDS)
    return sorted(fitting, key=lambda c: (c.artifact.format in CODE, c.check.latency_ms, order.index(c.check.backend)))


def why_unavailable(name: str, device: str) -> str | None:
    """Why the backend cannot be used here; None if it can."""
    return backends.missing(name) or backends.unsupported_device(name, device)


def files_to_load(
    manifest: Manifest, backend: str | None, precision: str | None, device: str, trust: Trust
) -> set[str]:
    """Names of the files that will be loaded first, as far as known from the manifest."""
    files = {manifest.guard.file} if manifest.guard else set()
    try:
        considered = candidates(manifest, backend, precision)
    except InputError:  # raised again after the files were verified
        return files
    for candidate in considered:
        name, artifact = candidate.check.backend, candidate.artifact
        held = artifact.format in CODE and not trust.code
        if not held and not why_unavailable(name, device):
            weights = weights_of(manifest, artifact)
            return files | {artifact.file} | ({weights.file} if weights else set())
    return files


def mark_untrusted(considered: Sequence[Candidate], bundle: Path, trust: Trust, *, named: bool) -> None:
    """Mark the candidates that contain code and are not trusted. Raises TrustError if the requested backend or
    precision matches no other candidate."""
    held = [] if trust.code else [candidate for candidate in considered if candidate.artifact.format in CODE]
    engines = any(backends.missing(candidate.check.backend) is None for candidate in held)
    if engines and named and len(held) == len(considered):
        raise TrustError(untrusted_message(bundle / held[0].artifact.file, held[0].artifact.format))
    for candidate in held if engines else []:
        candidate.untrusted_code = True
        candidate.verdict = "contains code: loaded only with trust_code=True (--trust-code)"
