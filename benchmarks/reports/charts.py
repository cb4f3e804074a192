"""Charts of a record, drawn with matplotlib: latency samples, changed predictions, roofline, stages and scaling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.records.schema import STAGES
from stageproof.benchmarks.reports.figures import Figures, number
from stageproof.train.reports.charts.images import new_figure

_WIDTH = 4.9  # inches: text of 9 points is readable on a phone
_BLUE, _ORANGE = "#1f5fa8", "#b3541e"
_MARKS: dict[str, dict[str, Any]] = {
    "predictor": {"marker": "o", "color": _BLUE, "label": "Predictor"},
    "peer": {"marker": "s", "edgecolor": _ORANGE, "facecolor": "white", "label": "peer"},
    "engine": {"marker": "^", "edgecolor": _BLUE, "facecolor": "white", "label": "engine alone"},
}
_IN_A_LEVEL = 18
"""Numbers of rows that fit beside each other."""
_STAGES = dict(zip(STAGES, ("black", "white", "0.5", "0.8", "white", "0.3"), strict=True))


def samples(found: Sequence[Figures]) -> Figure:
    """Every latency sample of each row, the first at the top of its strip; a line marks the median."""
    figure = new_figure(_WIDTH, 0.5 * len(found) + 0.7)
    axes = figure.subplots()
    for at, one in enumerate(found):
        down = at + np.linspace(0.4, 0.85, len(one.row.samples_ms))
        axes.scatter(one.row.samples_ms, down, s=2, color=_BLUE, linewidth=0, rasterized=True)
        axes.plot([one.median] * 2, [at + 0.36, at + 0.89], color="black", linewidth=1)
        axes.axhline(at + 0.98, color="0.85", linewidth=0.7)
    _logarithmic(axes, "x", [sample for one in found for sample in one.row.samples_ms])
    axes.set_xlabel("milliseconds")
    _strips(axes, [(one, one.median) for one in found])
    axes.grid(axis="x", color="0.9")
    return figure


def changed_predictions(found: Sequence[Figures]) -> Figure | None:
    """Changed predictions against latency, with the Pareto front; None where none were counted."""
    counted = [(one, 100 * one.row.flips["count"] / one.row.flips["images"]) for one in found if one.row.flips]
    if not counted:
        return None
    figure = new_figure(_WIDTH, 3.8)
    axes = figure.subplots()
    _marks(axes, [(one.median, share, one) for one, share in counted])
    front: list[tuple[float, float]] = []
    for one, share in sorted(counted, key=lambda pair: (pair[0].median, pair[1])):
        if not front or share < front[-1][1]:
            front.append((one.median, share))
    _logarithmic(axes, "x", [one.median for one, _ in counted])
    front.append((axes.get_xlim()[1], front[-1][1]))
    axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color="black", linestyle="--", linewidth=1, zorder=1)
    most = max(1.0, *(share for _, share in counted))
    axes.set(
        xlabel="median latency of one image, milliseconds",
        ylabel="changed predictions, %",
        ylim=(-0.06 * most, 1.1 * most),
    )
    return figure


def roofline(found: Sequence[Figures], record: Record) -> Figure | None:
    """Arithmetic rate against arithmetic intensity, under the limits of the machine (Williams et al. 2009).

    The bytes are those of the artifact, read once a run: the minimum that must be moved. None if limits, arithmetic or
    file sizes were not measured.
    """
    floors, gflop = record.facts["floors"], record.facts["work"].get("gflop_per_image")
    rates = {name: entry["gflop_s"] for name, entry in floors.items() if "gflop_s" in entry}
    points = [
        (gflop * 1e9 * one.row.batch / one.row.file_bytes, gflop * one.row.images_per_s, one)
        for one in found
        if gflop and one.row.file_bytes and one.row.images_per_s
    ]
    if not (rates and "memory" in floors and points):
        return None
    moved = floors["memory"]["gb_s"]
    figure = new_figure(_WIDTH, 4.4)
    axes = figure.subplots()
    _marks(axes, points)
    ridges = [rate / moved for rate in rates.values()]
    _logarithmic(axes, "x", [*(x for x, _, _ in points), *ridges])
    _logarithmic(axes, "y", [*(y for _, y, _ in points), *rates.values()])
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    start = max(left, bottom / moved)
    axes.plot([start, max(ridges)], [start * moved, max(ridges) * moved], color="black", linewidth=1)
    for name, rate in rates.items():
        axes.plot([max(left, rate / moved), right], [rate, rate], color="black", linewidth=1)
        axes.annotate(f"{name} {rate:.0f}", (right, rate), (3, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set(xlabel="FLOP per byte of the artifact", ylabel="GFLOP/s")
    return figure


def stage_medians(one: Figures) -> dict[str, float]:
    """Median milliseconds of each stage, in the order of execution."""
    found = one.row.stages_ms or {}
    return {stage: float(np.median(found[stage])) for stage in STAGES if found.get(stage)}


def stages(found: Sequence[Figures], without: str = "") -> Figure:
    """A stacked bar of stage medians for each row that has them. without: a stage that is left out, to show others."""
    rows = [(one, stage_medians(one)) for one in found if stage_medians(one)]
    figure = new_figure(_WIDTH, 0.5 * len(rows) + 1.1)
    axes = figure.subplots()
    lefts = np.zeros(len(rows))
    for stage in STAGES:
        if stage != without and any(stage in medians for _, medians in rows):
            # A difference of two clocks may be negative by nanoseconds.
            widths = np.array([max(0.0, medians.get(stage, 0.0)) for _, medians in rows])
            look: dict[str, Any] = {
                "color": _STAGES[stage],
                "hatch": "////" if stage == "compute" else "",
                "label": stage,
            }
            axes.barh(np.arange(len(rows)) + 0.6, widths, 0.4, lefts, edgecolor="black", linewidth=0.7, **look)
            lefts += widths
    axes.set_xlabel("milliseconds" + (f", without {without}" if without else ""))
    _strips(axes, [(one, total) for (one, _), total in zip(rows, lefts, strict=True)])
    _legend(axes)
    return figure


def cost_of_images(entries: Sequence[Mapping[str, Any]]) -> tuple[Figure, float]:
    """Time against number of images, with a line of equal cost for each image, and the largest deviation from it."""
    images, seconds = (np.array([entry[key] for entry in entries], float) for key in ("images", "seconds"))
    expected = images * float(np.exp(np.median(np.log(seconds / images))))
    figure = new_figure(_WIDTH, 3)
    axes = figure.subplots()
    axes.plot(images, expected, color="black", linestyle="--", linewidth=1)
    axes.plot(images, seconds, "o", color=_BLUE)
    _logarithmic(axes, "x", images)
    _logarithmic(axes, "y", [*seconds, *expected])
    axes.set(xlabel="images", ylabel="seconds")
    return figure, float(np.abs(seconds / expected - 1).max())


def _strips(axes: Axes, rows: Sequence[tuple[Figures, float]]) -> None:
    """The name and milliseconds of each row, at the top of its strip: row `at` from y = `at` to `at` + 1."""
    for at, (one, milliseconds) in enumerate(rows):
        text = f"{one.number}. {one.title}: {number(milliseconds)} ms"
        axes.text(0.01, at + 0.3, text, transform=axes.get_yaxis_transform(), fontsize=9)
    axes.set(ylim=(len(rows), 0), yticks=[])


def _marks(axes: Axes, points: Sequence[tuple[float, float, Figures]]) -> None:
    """A mark for each row, by kind, and its number above the axes, joined to it by a line.

    The numbers are spaced evenly in the order of x, on as many levels as they need, so that none covers another one or
    a mark.
    """
    for kind, look in _MARKS.items():
        if some := [(x, y) for x, y, one in points if one.row.kind == kind]:
            xs, ys = zip(*some, strict=True)
            axes.scatter(xs, ys, s=26, zorder=3, **look)
    ordered = sorted(points, key=lambda point: point[0])
    levels = -(-len(ordered) // _IN_A_LEVEL)
    for at, (share, (x, y, one)) in enumerate(zip(np.linspace(0.02, 0.98, len(ordered)), ordered, strict=True)):
        axes.annotate(
            str(one.number),
            (x, y),
            (share, 1.03 + 0.045 * (at % levels)),
            textcoords="axes fraction",
            ha="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2},
        )
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.figure.legend(loc="outside upper left", ncols=6, frameon=False, fontsize=8, columnspacing=1, handlelength=1.2)


def _logarithmic(axes: Axes, name: str, values: Sequence[float] | np.ndarray) -> None:
    """A logarithmic axis around the values, with round numbers as ticks."""
    low, high = min(values), max(values)
    room = max((high / low) ** 0.06, 1.05)
    getattr(axes, f"set_{name}scale")("log")
    getattr(axes, f"set_{name}lim")(low / room, high * room)
    axis = getattr(axes, f"{name}axis")
    decades = LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,))
    axis.set_major_locator(decades if high > 5 * low else MaxNLocator(5))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
