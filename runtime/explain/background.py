"""Which pixels of a slice are background: what is dark and joined to the border."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

DARK = 0.1
"""Share of the bright level (98th percentile) up to which a pixel is dark."""
_SIDE = 160  # pixels that the search is done on


def head(image: Image.Image) -> np.ndarray:
    """(height, width) bool of the image: what is not background. True everywhere where no background is found.

    image: mode L or RGB. Dark parts inside the head (ventricles) are not joined to the border and stay in.
    """
    scale = _SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    grey = np.asarray(image.convert("L").resize(size, Image.Resampling.BILINEAR).filter(ImageFilter.MedianFilter(3)))
    dark = grey <= DARK * float(np.percentile(grey, 98))
    outside = np.zeros_like(dark)
    outside[0], outside[-1], outside[:, 0], outside[:, -1] = dark[0], dark[-1], dark[:, 0], dark[:, -1]
    while True:  # grows by one pixel a round, at most _SIDE**2 rounds
        grown = outside.copy()
        grown[1:] |= outside[:-1]
        grown[:-1] |= outside[1:]
        grown[:, 1:] |= outside[:, :-1]
        grown[:, :-1] |= outside[:, 1:]
        grown &= dark
        if grown.sum() == outside.sum():
            break
        outside = grown
    if outside.all():
        return np.ones((image.height, image.width), bool)
    inside = Image.fromarray(np.where(outside, 0, 255).astype(np.uint8)).resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(inside) >= 128


def share_outside(heat: np.ndarray, inside: np.ndarray) -> float:
    """Share of a heat map's sum that lies on the background, in [0, 1]. heat: (h, w). inside: (H, W) of `head`."""
    whole = Image.fromarray(heat.astype(np.float32)).resize(inside.shape[::-1], Image.Resampling.BILINEAR)
    stretched = np.clip(np.asarray(whole), 0.0, None)
    return float(stretched[~inside].sum() / max(float(stretched.sum()), 1e-12))
