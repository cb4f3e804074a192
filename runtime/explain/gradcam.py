"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of a bundle's float32 `.pt2`, through captum."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np

from stageproof.runtime.errors import BackendUnavailable, InputError

LAYERS = {"resnet50": "layer4", "resnet34-gray": "layer3"}
"""Architecture → its last layer that still has a height and a width."""


def grad_cam(content: bytes, architecture: str, image: np.ndarray, target: int) -> np.ndarray:
    """(h, w) float32 in [0, 1]: how much each cell of the last convolutional layer raises one class's logit.

    The largest cell is 1; all are 0 where none raises it. At 128 × 128 pixels a ResNet50 has 4 × 4 cells.

    content: a float32 `.pt2` that torch.export wrote, of a maker whose code is trusted, verified by the caller.
    image: (C, H, W) float32 from `runtime.preprocess`.
    target: the class, as a position among the model's outputs.

    Raises BackendUnavailable without the extra explain, InputError for an architecture whose layers are not known.
    """
    if architecture not in LAYERS:
        raise InputError(f"Grad-CAM knows the layers of {', '.join(LAYERS)}, not of {architecture!r}.")
    if reason := lacking():
        raise BackendUnavailable(f"Grad-CAM {reason}.")
    import torch
    from captum.attr import LayerGradCam

    # The layers under their own names again, which the exported program has flattened into one graph.
    model = torch.export.unflatten(torch.export.load(io.BytesIO(content)))
    layer = model.get_submodule(LAYERS[architecture])
    pixels = torch.from_numpy(image[None]).requires_grad_(True)
    cells = LayerGradCam(model, layer).attribute(pixels, target=target, relu_attributions=True)
    found: np.ndarray = cells[0, 0].detach().numpy().astype(np.float32)
    return found / max(float(found.max()), 1e-12)


def lacking() -> str | None:
    """Why Grad-CAM cannot run here, with the command that mends it; None when it can. Imports neither package."""
    for package in ("torch", "captum"):
        if find_spec(package) is None:
            return f"needs the package {package}: pip install 'stageproof[explain]'"
    return None
