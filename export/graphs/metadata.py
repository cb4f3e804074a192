"""Metadata of ONNX graphs: the model description, and the channel factors of cross-layer equalisation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.bundle.manifest import METADATA_KEY

if TYPE_CHECKING:
    from onnx import ModelProto

KEY = "stageproof_channel_scales"
"""Metadata key of the JSON with the factors of input and output channels of each convolution."""


def describe(model: ModelProto, description: dict[str, Any]) -> None:
    """Write `description` (of `Job.description`) into the model's metadata, replacing an earlier one, so that the file
    can be used without a bundle."""
    kept = [entry for entry in model.metadata_props if entry.key == KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(description)


def channel_scales(metadata: str | None) -> dict[str, tuple[np.ndarray | None, np.ndarray | None]]:
    """Weight name → (factors of input channels, factors of output channels), (C,) float32 each or None if not scaled.

    metadata: value of `KEY`; None for a graph that was not equalised, which gives {}.
    """
    if not metadata:
        return {}

    def array(values: list[float] | None) -> np.ndarray | None:
        return None if values is None else np.array(values, np.float32)

    return {name: (array(into), array(out)) for name, (into, out) in json.loads(metadata).items()}
