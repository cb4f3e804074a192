"""Names, colours and sizes for 2 to 20 classes in a chart."""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.axes import Axes

from stageproof.runtime.labels import LabelSet

_WIDEST = 18
"""Maximum length of a class name in a chart, in characters."""
_COLOURS = ("#1b3a5c", "#4a7ab5", "#d98c1f", "#c0392b")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)))


def chart_names(classes: LabelSet) -> list[str]:
    """A name of at most 18 characters for each class, all different; tables beside the charts have the full names."""
    half = _WIDEST // 2
    for long in (
        [f"{name[: _WIDEST - 1]}…" for name in classes.short],
        [f"{name[: half - 1]}…{name[-half:]}" for name in classes.short],
    ):
        names = [name if len(name) <= _WIDEST else cut for name, cut in zip(classes.short, long, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [f"{at}: {name}"[:_WIDEST] for at, name in enumerate(classes.short, 1)]


def line_style(at: int, classes: LabelSet) -> dict[str, Any]:
    """Colour and dashes of the curve of one class. at: its position."""
    if len(classes) <= len(_COLOURS):
        return {"color": _COLOURS[at], "linestyle": _DASHES[at]}
    shade = matplotlib.colormaps["turbo"](0.05 + 0.9 * at / (len(classes) - 1))
    return {"color": shade, "linestyle": _DASHES[at % len(_DASHES)]}


def confusion_size(classes: LabelSet) -> tuple[float, float]:
    """Width and height of a confusion matrix, in inches: cells large enough for counts of five digits."""
    longest = max(map(len, chart_names(classes)))
    side = max(4.3, 1.3 + 0.48 * len(classes) + 0.05 * longest)
    return side + 0.03 * longest, side


def class_ticks(axes: Axes, classes: LabelSet) -> None:
    """Name the classes on both axes; those of the horizontal one are slanted if they would overlap."""
    names = chart_names(classes)
    level = len(names) * max(map(len, names)) <= 36  # characters beside each other in a matrix of four inches
    slanted: dict[str, Any] = {} if level else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **slanted)
    axes.set_yticks(range(len(names)), names)
