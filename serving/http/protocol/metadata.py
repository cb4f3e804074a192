"""What the server and its model say of themselves, in JSON; gRPC has the same fields."""

from __future__ import annotations

import json
from typing import Any

import stageproof
from stageproof.serving.http.inference.errors import Refusal
from stageproof.serving.http.inference.loaded import Loaded
from stageproof.serving.http.protocol.tensors import INPUTS, OUTPUTS, shown

VERSION = "1"
"""The only version of the model. Which bundle answers is in `model_digest` and in the parameter `bundle_digest`."""


def server() -> dict[str, Any]:
    """Metadata of the server."""
    return {"name": "stageproof", "version": stageproof.__version__, "extensions": ["binary_tensor_data"]}


def model(name: str, loaded: Loaded) -> dict[str, Any]:
    """Metadata of the model. properties: text, as in gRPC; lists in it are JSON."""
    predictor = loaded.predictor
    sizes = {"probabilities": [-1, len(loaded.labels)]}
    return {
        "name": name,
        "versions": [VERSION],
        "platform": f"stageproof_{predictor.backend}",
        "inputs": [
            {"name": one, "datatype": datatype, "shape": shapes[-1]} for one, (datatype, shapes) in INPUTS.items()
        ],
        "outputs": [
            {"name": one, "datatype": datatype, "shape": sizes.get(one, [-1])} for one, datatype in OUTPUTS.items()
        ],
        "properties": {
            "labels": json.dumps(list(loaded.labels)),
            "architecture": predictor.model.architecture,
            "precision": predictor.precision,
            "engine": predictor.engine,
            "guarded": json.dumps(predictor.guarded),
            "model_digest": loaded.model_digest,
            "bundle_digest": loaded.bundle_digest,
        },
    }


def check_model(name: str, given: str, version: str = "") -> None:
    """Raise Refusal (404) unless the model of the request is the one that is served. version: empty for any."""
    if given != name:
        raise Refusal(404, f"there is no model {shown(given)}; this service has {name!r}.")
    if version not in ("", VERSION):
        raise Refusal(404, f"there is no version {shown(version)} of {name!r}; expected '{VERSION}', or none.")
