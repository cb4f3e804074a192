"""Does this machine compute what the reference computed? The bundle's golden images, replayed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.errors import InputError
from stageproof.runtime.images.reader import read
from stageproof.runtime.inference.loading import Serving
from stageproof.runtime.preprocess import preprocess
from stageproof.runtime.serialization.json_fields import is_number
from stageproof.runtime.softmax import probabilities

if TYPE_CHECKING:
    from stageproof.runtime.decoding.pool import Decoders

TOLERANCE = {"fp32": 1e-4, "tf32": 1e-3, "fp16": 5e-3, "bf16": 3e-2, "int8": 0.1}
"""Largest difference of a probability from the reference's by precision, where export measured no wider one."""


@dataclass(frozen=True)
class SelfTest:
    """What `Predictor.self_test` found."""

    passed: bool
    """No probability differs by more than the tolerance, and no clear decision flipped."""
    images: int
    max_probability_difference: float
    """From the eager float32 reference's, over all images and classes."""
    flipped: int
    """Images whose decision differs though the reference's lead was larger than twice the tolerance."""
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.images} golden images, probabilities within {self.max_probability_difference:.1e} (allowed "
            f"{self.tolerance:.0e}), {self.flipped} clear decisions flipped"
        )


def self_test(serving: Serving, pool: Decoders | None = None) -> SelfTest:
    """Replay the golden images of the bundle that `serving` was opened from, in the engine that serves.

    pool: decodes them, in processes with limits; None decodes here.
    """
    if serving.bundle is None or not serving.golden:
        raise InputError(
            f"{serving.bundle or serving.artifact} has no golden images to replay. Give a bundle that was exported "
            "with them."
        )
    temperature = serving.model.temperature
    expected = probabilities(np.array([golden.logits for golden in serving.golden]), temperature)
    assert serving.read is not None, "a bundle's files can be read"
    images = [read(serving.read(golden), pool=pool).image for golden in serving.golden]
    logits = np.concatenate([serving.logits(preprocess(image, serving.model.input)[None]) for image in images])
    got = probabilities(logits, temperature)
    tolerance = allowed(serving)
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * tolerance
    flipped = int((clear & (got.argmax(axis=1) != expected.argmax(axis=1))).sum())
    difference = float(np.abs(got - expected).max())
    return SelfTest(difference <= tolerance and not flipped, len(images), difference, flipped, tolerance)


def allowed(serving: Serving) -> float:
    """The largest difference of a probability: that of the precision, or twice what export found where that is wider;
    never more than parity allowed.

    What parity allows a single image of an 8-bit artifact is so wide that no broken engine would be noticed by it.
    """
    parity = serving.check.parity if serving.check else {}
    tolerance = TOLERANCE.get(serving.precision, TOLERANCE["int8"])
    if is_number(measured := parity.get("max_probability_difference")):
        tolerance = max(tolerance, 2 * float(measured))
    most = parity.get("tolerance")
    return min(tolerance, float(most)) if is_number(most) and most > 0 else tolerance
