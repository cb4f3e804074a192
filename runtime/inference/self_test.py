"""Self-test: compares this machine's results for the bundle's golden images with the reference's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.errors import InputError
from stageproof.runtime.images.reader import read
from stageproof.runtime.inference.serving import Serving
from stageproof.runtime.preprocess import preprocess
from stageproof.runtime.serialization.json_fields import is_number
from stageproof.runtime.softmax import probabilities

if TYPE_CHECKING:
    from stageproof.runtime.decoding.pool import Decoders

TOLERANCE = {"fp32": 1e-4, "tf32": 1e-3, "fp16": 5e-3, "bf16": 3e-2, "int8": 0.1}
"""Precision → allowed difference of a probability from the reference's, unless the export measured a larger one."""


@dataclass(frozen=True)
class SelfTest:
    """Result of `Predictor.self_test`."""

    passed: bool
    """True if all probabilities are within the tolerance and no clear prediction changed."""
    images: int
    """Number of golden images."""
    max_probability_difference: float
    """Largest absolute difference from the eager float32 reference, over all images and classes."""
    flipped: int
    """Images with another predicted class, although the reference's margin exceeds twice the tolerance."""
    tolerance: float
    """Allowed difference of a probability."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.images} golden images, probabilities within {self.max_probability_difference:.1e} (allowed "
            f"{self.tolerance:.0e}), {self.flipped} clear predictions changed"
        )


def self_test(serving: Serving, pool: Decoders | None = None) -> SelfTest:
    """Result for the golden images of the bundle, run in the engine of `serving`, with as many concurrent calls as the
    engine was loaded for.

    pool: decoder processes; None decodes in this process.
    """
    if serving.bundle is None or not serving.golden:
        raise InputError(
            f"{serving.bundle or serving.artifact} has no golden images, which the self-test requires. Give a bundle "
            "that was exported with them."
        )
    temperature = serving.model.temperature
    expected = probabilities(np.array([golden.logits for golden in serving.golden]), temperature)
    assert serving.read is not None, "a bundle's files can be read"
    images = [read(serving.read(golden), pool=pool).image for golden in serving.golden]
    batches = [preprocess(image, serving.model.input)[None] for image in images]
    with ThreadPoolExecutor(serving.settings.concurrent_calls, thread_name_prefix="stageproof-self-test") as calls:
        logits = np.concatenate([*calls.map(serving.logits, batches)])
    got = probabilities(logits, temperature)
    tolerance = self_test_tolerance(serving)
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * tolerance
    flipped = int((clear & (got.argmax(axis=1) != expected.argmax(axis=1))).sum())
    difference = float(np.abs(got - expected).max())
    return SelfTest(difference <= tolerance and not flipped, len(images), difference, flipped, tolerance)


def self_test_tolerance(serving: Serving) -> float:
    """The tolerance of the self-test: that of the precision, or twice the difference measured at export if larger, but
    at most the tolerance of the parity gate.

    The gate's tolerance alone is not used: for 8-bit artifacts it is too wide to detect a broken engine.
    """
    parity = serving.check.parity if serving.check else {}
    tolerance = TOLERANCE.get(serving.precision, TOLERANCE["int8"])
    if is_number(measured := parity.get("max_probability_difference")):
        tolerance = max(tolerance, 2 * float(measured))
    most = parity.get("tolerance")
    return min(tolerance, float(most)) if is_number(most) and most > 0 else tolerance
