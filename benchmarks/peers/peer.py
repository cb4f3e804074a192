"""`Peer`, inference from bytes to probabilities with timed stages: read, preprocess, compute, softmax."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image


class Peer:
    """Inference with one engine, as a user would write it.

    mode: PIL image mode of the model's input, ``RGB`` or ``L``.
    preprocess: PIL image → preprocessed image.
    compute: list of preprocessed images → (N, classes) float32 logits.
    """

    def __init__(
        self, mode: str, preprocess: Callable[[Image.Image], Any], compute: Callable[[list[Any]], Any]
    ) -> None:
        self.stages: dict[str, float] = {}
        self._mode = mode
        self._preprocess = preprocess
        self._compute = compute

    def answer(self, image: bytes) -> Sequence[float] | None:
        """Probabilities in the order of the model's labels."""
        return self.answer_all([image])[0]

    def answer_all(self, images: Sequence[bytes]) -> list[Sequence[float] | None]:
        """As `answer`, for several images in one batch."""
        begun = time.perf_counter()
        pictures = [Image.open(io.BytesIO(image)).convert(self._mode) for image in images]
        read = time.perf_counter()
        ready = [self._preprocess(picture) for picture in pictures]
        preprocessed = time.perf_counter()
        logits = self._compute(ready)
        computed = time.perf_counter()
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = (powers / powers.sum(axis=1, keepdims=True)).tolist()
        self.stages = {
            "read": (read - begun) * 1e3,
            "preprocess": (preprocessed - read) * 1e3,
            "compute": (computed - preprocessed) * 1e3,
            "post": (time.perf_counter() - computed) * 1e3,
        }
        return list(probabilities)


def standard_preprocessing(spec: Any) -> Callable[[Image.Image], np.ndarray]:
    """Function that preprocesses a PIL image to (C, H, W) float32 with Pillow and NumPy, as ONNX tutorials do."""
    mean = np.array(spec.mean, np.float32)
    std = np.array(spec.std, np.float32)

    def preprocess(picture: Image.Image) -> np.ndarray:
        pixels = np.asarray(picture.resize((spec.width, spec.height), Image.Resampling.BILINEAR), np.float32)
        pixels = (pixels.reshape(spec.height, spec.width, spec.channels) / np.float32(255) - mean) / std
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    return preprocess


def mode_of(spec: Any) -> str:
    """PIL image mode for a model with this `InputSpec`."""
    return "RGB" if spec.channels == 3 else "L"
