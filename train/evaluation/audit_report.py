"""The audit as one self-contained HTML page: findings, the gap that parts patients, and what the patients look like."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from train.data.patients import Patients

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px }
img { max-width: 100% } .note { color: #666 }
"""


def page(findings: dict[str, Any], lines: Sequence[str], thumbnails: np.ndarray, patients: Patients) -> str:
    """The HTML text.

    thumbnails: (N, 32, 32) uint8, in the order of `patients.groups`.
    """
    gap = "A line parts the links that hold a patient together from those between patients."
    if not patients.found:
        gap = "No gap is clear enough: the dashed line is the widest there is."
    montage = _montage(thumbnails, patients.groups)
    seen = f"<h2>Some of the groups</h2>{_image(montage, 'slices of some groups, one group a row')}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Dataset audit</title>'
        f"<style>{_STYLE}</style><h1>Dataset audit</h1><p>{html.escape(str(findings['source']))}</p>"
        f"<pre>{html.escape(chr(10).join(lines))}</pre>"
        f"<h2>How alike neighbours are</h2><p>{gap}</p>{_image(_plot(patients), 'distribution of links')}"
        f"{seen if patients.found else ''}"
        '<p class="note">Research use only.</p></html>'
    )


def _plot(patients: Patients) -> bytes:
    """PNG: links by correlation, as a histogram on Fisher's z, with the gap."""
    from matplotlib.figure import Figure

    z = np.arctanh(np.clip(patients.links, -1 + 1e-7, 1 - 1e-7))
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.hist(z, bins=120, color="#4a7ab5")
    axes.set_yscale("log")
    if np.isfinite(patients.below):
        middle = (np.arctanh(patients.below) + np.arctanh(patients.above)) / 2
        axes.axvline(middle, color="#c0392b", linestyle="-" if patients.found else "--")
    ticks = np.array([0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999])
    ticks = ticks[(np.arctanh(ticks) >= z.min() - 0.1) & (np.arctanh(ticks) <= z.max() + 0.1)]
    axes.set_xticks(np.arctanh(ticks), [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("correlation of the two slices of a link")
    axes.set_ylabel("links")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def _montage(thumbnails: np.ndarray, groups: np.ndarray, rows: int = 8, columns: int = 16) -> bytes:
    """PNG: up to `columns` slices of `rows` groups spread over the dataset, one group a row."""
    chosen = np.unique(np.linspace(0, groups.max(), rows).round().astype(int))
    side = thumbnails.shape[1]
    canvas = np.zeros((len(chosen) * side, columns * side), np.uint8)
    for row, group in enumerate(chosen):
        for column, index in enumerate(np.flatnonzero(groups == group)[:columns]):
            canvas[row * side : (row + 1) * side, column * side : (column + 1) * side] = thumbnails[index]
    file = io.BytesIO()
    Image.fromarray(canvas).resize((canvas.shape[1] * 2, canvas.shape[0] * 2)).save(file, "PNG")
    return file.getvalue()


def _image(png: bytes, alternative: str) -> str:
    return f'<img alt="{alternative}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
