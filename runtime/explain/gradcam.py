"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) of a bundle's float32 `.pt2`, through captum."""

from __future__ import annotations

import io
from importlib.util import find_spec

import numpy as np

from stageproof.runtime.errors import BackendUnavailable, InputError
from stageproof.runtime.explain.layers import layers_of

LEAST = 7
"""Cells in each direction below which a map does not say where in a head."""


def grad_cam(content: bytes, architecture: str, image: np.ndarray, target: int) -> tuple[np.ndarray, str]:
    """(h, w) float32 in [0, 1], and the layer's name: how much each cell of that layer raises one class's logit.

    The layer is the last one of `runtime.explain.layers` with 7 × 7 cells or more: of a ResNet50, layer4 at 224 × 224
    pixels, layer3 (8 × 8 cells) at 128 × 128. The largest cell is 1; all are 0 where none raises the logit.

    content: a float32 `.pt2` of torch.export, verified and trusted by the caller.
    image: (C, H, W) float32 from `runtime.preprocess`.
    target: index of the class among the model's outputs.

    Raises BackendUnavailable without the extra explain, InputError for an architecture whose layers are not known, or
    where no layer has 7 × 7 cells at this image size.
    """
    layers_of(architecture, ())  # before the imports: an architecture that is not supported
    if reason := why_unavailable():
        raise BackendUnavailable(f"Grad-CAM {reason}.")
    import torch
    from captum.attr import LayerGradCam

    # Restores the module hierarchy, which torch.export flattens into one graph.
    model = torch.export.unflatten(torch.export.load(io.BytesIO(content)))
    pixels = torch.from_numpy(image[None]).requires_grad_(True)
    for name in layers_of(architecture, (name for name, _ in model.named_modules())):
        layer = model.get_submodule(name)
        cells = LayerGradCam(model, layer).attribute(pixels, target=target, relu_attributions=True)
        found: np.ndarray = cells[0, 0].detach().numpy().astype(np.float32)
        if min(found.shape) >= LEAST:
            return found / max(float(found.max()), 1e-12), name
    stride = max(-(-side // cells) for side, cells in zip(image.shape[1:], found.shape, strict=True))
    raise InputError(
        f"At {image.shape[2]} × {image.shape[1]} pixels, {name}, the finest layer of {architecture} that Grad-CAM "
        f"uses, has {found.shape[1]} × {found.shape[0]} cells; fewer than {LEAST} × {LEAST} do not say where in a "
        f"head. Explain a model trained with --image-size {LEAST * stride} or more."
    )


def why_unavailable() -> str | None:
    """Why Grad-CAM cannot run here, with the command that installs it; None if it can. Imports neither package."""
    for package in ("torch", "captum"):
        if find_spec(package) is None:
            return f"needs the package {package}: pip install 'stageproof[explain]'"
    return None
