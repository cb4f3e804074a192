"""What an ONNX graph says of itself in its metadata: its description, and the factors of channels that were scaled."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from stageproof.runtime.bundle.manifest import METADATA_KEY

if TYPE_CHECKING:
    from onnx import ModelProto

KEY = "stageproof_channel_scales"
"""JSON, the factor of each channel that goes into and comes out of each convolution."""


def describe(model: ModelProto, description: dict[str, Any]) -> None:
    """Put `Job.description` into the model, in place of an earlier one, so that a lone file predicts."""
    kept = [entry for entry in model.metadata_props if entry.key == KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(description)


def channel_scales(metadata: str | None) -> dict[str, tuple[np.ndarray | None, np.ndarray | None]]:
    """Weight's name → the factors of the channels that go in and come out, (C,) float32 each, from what `KEY` holds;
    None: they are as they were. Nothing for a graph that was not equalised."""
    if not metadata:
        return {}

    def array(values: list[float] | None) -> np.ndarray | None:
        return None if values is None else np.array(values, np.float32)

    return {name: (array(into), array(out)) for name, (into, out) in json.loads(metadata).items()}
