"""Pictures of a run: learning curves and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from stageproof.runtime.labels import LabelSet
from stageproof.train.reports.charts.classes import class_ticks, confusion_size
from stageproof.train.reports.charts.images import new_figure, png
from stageproof.train.runs.metrics_log import Epoch

_CELL = 9
"""Size of the numbers in a confusion matrix, in points."""


def plot_curves(epochs: Sequence[Epoch], path: Path) -> None:
    """Write loss and accuracy over the epochs, of training and validation slices, as a PNG."""
    figure = new_figure(9, 3.5)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        draw_curves(axes, epochs, name)
    path.write_bytes(png(figure))


def draw_curves(axes: Axes, epochs: Sequence[Epoch], name: str) -> None:
    """One metric of every epoch, counted from 1 over all stages. name: ``loss`` or ``accuracy``."""
    at = np.arange(1, len(epochs) + 1)
    axes.plot(at, [getattr(epoch, name) for epoch in epochs], marker=".", label="training")
    axes.plot(at, [getattr(epoch, f"validation_{name}") for epoch in epochs], marker=".", label="validation")
    starts = [index for index in range(len(epochs)) if index == 0 or epochs[index].stage != epochs[index - 1].stage]
    for index in starts if len(starts) > 1 else []:
        if index:
            axes.axvline(index + 0.5, color="0.7", linestyle=":")
        axes.annotate(
            epochs[index].stage,
            (index + 0.5, 1),
            xycoords=("data", "axes fraction"),
            xytext=(2, 3),
            textcoords="offset points",
            fontsize=8,
            color="0.35",
        )
    axes.set_xlim(0.5, max(len(epochs), 1) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.set(xlabel="epoch", ylabel="loss (cross-entropy)" if name == "loss" else "accuracy (share of slices)")
    axes.legend()


def plot_confusion(predicted: np.ndarray, labels: np.ndarray, classes: LabelSet, path: Path) -> None:
    """Write the confusion matrix of validation slices as a PNG.

    predicted, labels: (N,) int, indices in `classes.names`.
    """
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, predicted), 1)
    width, height = confusion_size(classes)
    figure = new_figure(max(6, width), max(5.2, height))
    draw_confusion(figure.subplots(), counts, classes, "validation slices (shade: share of the row)")
    path.write_bytes(png(figure))


def draw_confusion(axes: Axes, counts: np.ndarray, classes: LabelSet, title: str) -> None:
    """A confusion matrix. counts: (classes, classes) int, rows true, columns predicted."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    class_ticks(axes, classes)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for row, column in np.ndindex(counts.shape):
        colour = "white" if share[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=_CELL)
