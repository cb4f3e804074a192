"""The pipeline that all peers serve, from encoded images to probabilities: Pillow, NumPy and ONNX Runtime."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HOST = "127.0.0.1"
NAME = "stageproof"
"""Name of the model in servers whose addresses contain it."""
WAIT_S = 0.002
"""Time that servers with a batching window wait for more requests: short beside an inference, and under load a batch
fills while the one before it runs."""


@dataclass(frozen=True)
class Settings:
    """What to serve, and with what."""

    model: str
    """Path of the .onnx file; its input is (N, channels, height, width) float32."""
    labels: tuple[str, ...]
    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    temperature: float
    threads: int
    """Processors; threads of a session that runs one batch at a time."""
    batch: int
    """Largest batch."""
    port: int

    @classmethod
    def read(cls) -> Settings:
        """The settings in the file that SERVING_PEER names."""
        return cls(**json.loads(Path(os.environ["SERVING_PEER"]).read_text(encoding="utf-8")))


class Pipeline:
    """The network with what is before and after it. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(settings.model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._filter = Image.Resampling[settings.interpolation.upper()]
        self._mean, self._std = np.array(settings.mean, np.float32), np.array(settings.std, np.float32)
        self.settings = settings

    def probabilities(self, images: Sequence[bytes]) -> np.ndarray:
        """(N, classes) float32, in the order of `Settings.labels`, for N encoded images in one batch."""
        logits = self._session.run(None, {self._input: np.stack([self._pixels(image) for image in images])})[0]
        powers = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(self.settings.temperature))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)

    def labels(self, probabilities: np.ndarray) -> list[str]:
        """The most probable label of each row."""
        return [self.settings.labels[position] for position in probabilities.argmax(axis=1)]

    def answers(self, images: Sequence[bytes]) -> list[dict[str, Any]]:
        """{"label", "probabilities"} of each image, ready for JSON."""
        rows = self.probabilities(images)
        return [
            {"label": label, "probabilities": row.tolist()} for label, row in zip(self.labels(rows), rows, strict=True)
        ]

    def _pixels(self, image: bytes) -> np.ndarray:
        """(channels, height, width) float32."""
        settings = self.settings
        picture = Image.open(io.BytesIO(image)).convert("RGB" if settings.channels == 3 else "L")
        pixels = np.asarray(picture.resize((settings.width, settings.height), self._filter), np.float32)
        pixels = pixels.reshape(settings.height, settings.width, settings.channels) / np.float32(255)
        return ((pixels - self._mean) / self._std).transpose(2, 0, 1)
