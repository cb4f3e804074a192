"""Pictures of a run: learning curves, and which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot, which keeps global state

from stageproof.runtime.labels import LABELS
from stageproof.train.runs.metrics_log import Epoch


def plot_curves(epochs: Sequence[Epoch], path: Path) -> None:
    """Write loss and accuracy over the epochs, of training and validation slices, as a PNG."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    at = np.arange(1, len(epochs) + 1)
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(at, [getattr(epoch, name) for epoch in epochs], marker=".", label="training")
        axes.plot(at, [getattr(epoch, f"validation_{name}") for epoch in epochs], marker=".", label="validation")
        for index in range(1, len(epochs)):
            if epochs[index].stage != epochs[index - 1].stage:
                axes.axvline(index + 0.5, color="0.7", linestyle=":")
        axes.set(xlabel="epoch", title=name)
        axes.legend()
    figure.savefig(path, dpi=120, format="png")


def plot_confusion(predicted: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Write how many slices of each class were taken for each class, as a PNG.

    predicted, labels: (N,) int, positions in LABELS.
    """
    counts = np.zeros((len(LABELS), len(LABELS)), int)
    np.add.at(counts, (labels, predicted), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(6, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(share, vmin=0, vmax=1, cmap="Blues")
    names = [label.removesuffix("Demented") for label in LABELS]
    axes.set_xticks(range(len(LABELS)), names)
    axes.set_yticks(range(len(LABELS)), names)
    axes.set(xlabel="taken for", ylabel="is", title="validation slices (shade: share of the row)")
    for row in range(len(LABELS)):
        for column in range(len(LABELS)):
            colour = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    figure.savefig(path, dpi=120, format="png")
