"""Finds the artifacts of a bundle that are incompatible with this machine, for `python -m export --rebuild`."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stageproof.export.engines.runners import load, missing, one_line
from stageproof.export.formats import FORMATS
from stageproof.runtime.artifacts.verified_bytes import CODE
from stageproof.runtime.backends import Backend
from stageproof.runtime.bundle.manifest import TENSOR, Artifact, Check, Manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BackendError, BackendUnavailable
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.preprocess import preprocess
from stageproof.runtime.softmax import probabilities

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stale:
    """An artifact to rebuild."""

    artifact: Artifact
    reason: str
    gives: str
    """``probabilities`` or ``logits``."""


def stale(bundle: Path, threads: int, *, trust_code: bool = False) -> list[Stale]:
    """The artifacts of a bundle that on this machine do not load, predict differently, or have another engine version.

    Parity was checked for a file in one engine version, so another version is a reason to rebuild. Artifacts that
    cannot run here are skipped, and logged: the engine is not installed, it needs a GPU, or the file contains untrusted
    code. Raises BundleError if the bundle was changed.
    """
    manifest = verified(bundle)
    found = []
    for artifact in manifest.artifacts:
        reasons, gives = [], "logits"
        for check in artifact.checks:
            if reason := missing(check.backend):
                logger.info(f"{artifact.file}: not checked in {check.backend!r}: it {reason}")
                continue
            if artifact.format in CODE and not trust_code:
                logger.info(f"{artifact.file}: not checked, since it contains code. To load it: --trust-code")
                continue
            reason, carried = _reason(bundle, manifest, artifact, check, threads, trust_code)
            gives = carried or gives
            reasons += [reason] if reason else []
        if reasons:
            found.append(Stale(artifact, "; ".join(reasons), gives))
    return found


def combinations_of(found: list[Stale]) -> dict[str, list[str]]:
    """Format → precisions to rebuild, as returned by `export.formats.combinations`."""
    pairs = {(entry.artifact.format, entry.artifact.precision) for entry in found}
    return {
        name: [p for p in module.PRECISIONS if (name, p) in pairs]
        for name, module in FORMATS.items()
        if any(format_name == name for format_name, _ in pairs)
    }


def _reason(
    bundle: Path, manifest: Manifest, artifact: Artifact, check: Check, threads: int, trust_code: bool
) -> tuple[str | None, str | None]:
    """(why the artifact must be rebuilt, or None; the output that its metadata states, or None)."""
    path = bundle / artifact.file
    try:
        loaded = load(check.backend, path, artifact.precision, threads, takes=artifact.takes, trust_code=trust_code)
    except (BackendUnavailable, BackendError) as error:
        return f"does not load in {check.backend!r}: {one_line(error, path)}", None
    gives = json.loads(loaded.metadata or "{}").get("gives")
    if loaded.engine != check.engine:
        return f"was checked in {check.engine}, installed is {loaded.engine}", gives
    if artifact.takes == TENSOR and manifest.golden:
        difference = _golden_difference(bundle, manifest, loaded)
        if not difference <= float(check.parity.get("tolerance", 0)):
            return f"changes a probability of a golden image by {difference:.1e} in {loaded.engine}", gives
    return None, gives


def _golden_difference(bundle: Path, manifest: Manifest, loaded: Backend) -> float:
    """Largest difference of a probability of the golden images from the reference's."""
    model = manifest.model
    images = np.stack([preprocess(read_image(bundle / golden.file), model.input) for golden in manifest.golden])
    expected = probabilities(np.array([golden.logits for golden in manifest.golden]), model.temperature)
    return float(np.abs(probabilities(loaded.run(images), model.temperature) - expected).max())
