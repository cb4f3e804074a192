"""The reliability picture: smoothed curves, each with the band that perfectly calibrated probabilities stay in."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_PANELS = (
    ("before", "slices, before temperature", "#4a7ab5", "slices"),
    ("after", "slices, after temperature", "#4a7ab5", "slices"),
    ("patients", "studies (one a patient)", "#c0392b", "studies"),
)


def draw_reliability(figure: Figure, facts: dict[str, Any]) -> None:
    """A panel for slices before and after the temperature and for studies, where the facts have them.

    facts: the content of `evaluation.json`.
    """
    calibration, assessment = facts["calibration"], facts["calibration"].get("assessment") or {}
    panels = [panel for panel in _PANELS if calibration[panel[0]]]
    figure.set_size_inches(3.9 * len(panels), 5)
    grid = figure.subplots(2, len(panels), squeeze=False, height_ratios=[4, 1], sharex=True)
    for column, (name, title, colour, counted) in enumerate(panels):
        side, found = calibration[name], assessment.get(name) or {}
        above, below = grid[0][column], grid[1][column]
        above.plot([0, 1], [0, 1], color="0.6", linestyle=":", linewidth=1)
        if found.get("curve"):
            _curve(above, found["curve"], colour)
        else:
            bins = [one for one in side["reliability"] if one["count"]]
            above.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], "o", color=colour)
        above.set(ylim=(0, 1.02), xlim=(0, 1.02), ylabel="share right" if column == 0 else "")
        above.set_title(f"{title}\n{_verdict(found)}", fontsize=10)
        counts = np.array([one["count"] for one in side["reliability"]])
        below.bar((np.arange(len(counts)) + 0.5) / len(counts), counts, 0.9 / len(counts), color="0.7")
        below.set(xlabel="probability of the answer", ylabel=counted)


def _curve(axes: Axes, curve: list[dict[str, float]], colour: str) -> None:
    curve = sorted(curve, key=lambda point: point["predicted"])
    x, y, low, high = ([point[key] for point in curve] for key in ("predicted", "observed", "low", "high"))
    axes.fill_between(x, low, high, color="0.85", linewidth=0, label="calibrated: 95 % stay within")
    axes.plot(x, y, color=colour, linewidth=2, label="observed, smoothed")
    axes.legend(loc="upper left", frameon=False, fontsize=8)


def _verdict(found: dict[str, Any]) -> str:
    if not found.get("miscalibration"):
        return "not tested: too few patients"
    test = found["miscalibration"]
    p = "p < 0.01" if test["p"] < 0.01 else f"p = {test['p']:.2f}"
    return f"miscalibrated ({p})" if test["declared"] else f"miscalibration not shown ({p})"
