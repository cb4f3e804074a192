"""`Loaded`: a bundle that was verified, loaded and self-tested. `load` makes one, or raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.errors import BackendError, InputError
from stageproof.runtime.guard.ood_guard import Guard
from stageproof.runtime.predictor import Predictor


@dataclass(frozen=True)
class Loaded:
    """A Predictor whose self-test passed, and what the service says of it."""

    predictor: Predictor
    labels: tuple[str, ...]
    """Classes in clinical order, that of the probabilities."""
    bundle_digest: str
    """SHA-256 of the bundle's manifest."""
    model_digest: str
    """SHA-256 of the reference weights."""
    self_test: str
    """What the self-test measured, as text."""
    thresholds: Mapping[str, float]
    """Guard score → its limit; empty without a guard."""
    expected_rejected: float | None
    """Fraction of held-out training slices that the guard rejects; None without a guard."""


def load(bundle: Path, make: Callable[[Path], Predictor]) -> Loaded:
    """The verified, loaded and self-tested bundle. make: path → Predictor.

    Raises the errors of `Predictor` and `Predictor.self_test`, BackendError if the self-test fails.
    """
    if bundle.is_file():
        raise InputError(
            f"{bundle} is a lone artifact; the service needs a bundle with golden images for its self-test. Export a "
            "bundle, and give its folder."
        )
    predictor = make(bundle)
    result = predictor.self_test()
    if not result.passed:
        raise BackendError(f"The self-test failed: {result}. Do not use {predictor.artifact} on this machine.")
    thresholds: dict[str, float] = {}
    expected = None
    if predictor.guarded and (document := read_manifest(bundle).guard):
        guard = Guard.read(bundle / document.file)
        thresholds, expected = dict(guard.thresholds), guard.fitted.get("rejected")
    model = predictor.model
    names = tuple(model.classes.names)
    return Loaded(predictor, names, predictor.digest, model.digest, str(result), thresholds, expected)
