"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of a bundle's float32 `.pt2`, through captum."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np

from stageproof.runtime.errors import BackendUnavailable, InputError

LAYERS = {"resnet50": "layer4", "resnet34-gray": "layer3"}
"""Architecture → its last convolutional layer."""


def grad_cam(content: bytes, architecture: str, image: np.ndarray, target: int) -> np.ndarray:
    """(h, w) float32 in [0, 1]: positive contribution of each cell of the last convolutional layer to a class's logit.

    Scaled to a maximum of 1; all zeros if no contribution is positive. For 128 × 128 pixels, a ResNet50 has 4 × 4
    cells.

    content: a float32 `.pt2` of torch.export, verified and trusted by the caller.
    image: (C, H, W) float32 from `runtime.preprocess`.
    target: index of the class among the model's outputs.

    Raises BackendUnavailable without the extra explain, InputError for an unknown architecture.
    """
    if architecture not in LAYERS:
        raise InputError(f"Grad-CAM supports the architectures {', '.join(LAYERS)}, got {architecture!r}.")
    if reason := why_unavailable():
        raise BackendUnavailable(f"Grad-CAM {reason}.")
    import torch
    from captum.attr import LayerGradCam

    # Restores the module hierarchy, which torch.export flattens into one graph.
    model = torch.export.unflatten(torch.export.load(io.BytesIO(content)))
    layer = model.get_submodule(LAYERS[architecture])
    pixels = torch.from_numpy(image[None]).requires_grad_(True)
    cells = LayerGradCam(model, layer).attribute(pixels, target=target, relu_attributions=True)
    found: np.ndarray = cells[0, 0].detach().numpy().astype(np.float32)
    return found / max(float(found.max()), 1e-12)


def why_unavailable() -> str | None:
    """Why Grad-CAM cannot run here, with the command that installs it; None if it can. Imports neither package."""
    for package in ("torch", "captum"):
        if find_spec(package) is None:
            return f"needs the package {package}: pip install 'stageproof[explain]'"
    return None
