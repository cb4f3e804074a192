"""Pictures of probabilities, from `evaluation.json`: reliability diagrams, decision curve, predictive values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stageproof.runtime.labels import LabelSet
from stageproof.train.reports.formatting import condition

_MODEL, _ALL = "#c0392b", "#7f8c8d"
_PANELS = (
    ("before", "slices, before temperature", "#4a7ab5", "slices"),
    ("after", "slices, after temperature", "#4a7ab5", "slices"),
    ("patients", "studies (one a patient)", "#c0392b", "studies"),
)


def draw_reliability(figure: Figure, facts: dict[str, Any]) -> None:
    """Reliability diagrams of slices before and after temperature scaling and of studies, if the facts have them.

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
            _reliability_curve(above, found["curve"], colour)
        else:
            bins = [one for one in side["reliability"] if one["count"]]
            above.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], "o", color=colour)
        above.set(ylim=(0, 1.02), xlim=(0, 1.02), ylabel="accuracy" if column == 0 else "")
        above.set_title(f"{title}\n{_verdict(found)}", fontsize=10)
        counts = np.array([one["count"] for one in side["reliability"]])
        below.bar((np.arange(len(counts)) + 0.5) / len(counts), counts, 0.9 / len(counts), color="0.7")
        below.set(xlabel="predicted probability", ylabel=counted)


def _reliability_curve(axes: Axes, curve: list[dict[str, float]], colour: str) -> None:
    curve = sorted(curve, key=lambda point: point["predicted"])
    x, y, low, high = ([point[key] for point in curve] for key in ("predicted", "observed", "low", "high"))
    axes.fill_between(x, low, high, color="0.85", linewidth=0, label="95 % of calibrated models")
    axes.plot(x, y, color=colour, linewidth=2, label="observed, smoothed")
    axes.legend(loc="upper left", frameon=False, fontsize=8)


def _verdict(found: dict[str, Any]) -> str:
    if not found.get("miscalibration"):
        return "not tested: too few patients"
    test = found["miscalibration"]
    p = "p < 0.01" if test["p"] < 0.01 else f"p = {test['p']:.2f}"
    return f"miscalibration: {'significant' if test['declared'] else 'not significant'} ({p})"


def clinical_pictures(facts: dict[str, Any], classes: LabelSet) -> dict[str, Callable[[Axes], None]]:
    """File name → function that draws it; none for what is not estimable. facts: the content of `evaluation.json`."""
    drawn: dict[str, Callable[[Axes], None]] = {}
    has = condition(classes)
    if (facts.get("net_benefit") or {}).get("curve"):
        drawn["net-benefit.png"] = lambda axes: _net_benefit(axes, facts["net_benefit"]["curve"], has)
    if (facts.get("predictive_values") or {}).get("at"):
        drawn["predictive-values.png"] = lambda axes: _predictive(axes, facts["predictive_values"]["at"], has)
    return drawn


def _net_benefit(axes: Axes, curve: list[dict[str, Any]], has: str) -> None:
    at = [row["threshold"] for row in curve]
    for name, colour, label in (("treat_all", _ALL, "treat everybody"), ("model", _MODEL, "treat by the model")):
        _band(axes, at, [row[name] for row in curve], colour, label)
    axes.axhline(0, color="black", linewidth=1, label="treat nobody")
    highest = max(row[name]["high"] for row in curve for name in ("model", "treat_all"))
    axes.set(
        xlabel=f"threshold: probability of {has} above which to treat",
        ylabel="net benefit, true positives per patient",
        xlim=(0, 1),
        ylim=(-0.6 * highest, 1.05 * highest),
    )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, fontsize=9)


def _predictive(axes: Axes, rows: list[dict[str, Any]], has: str) -> None:
    for name, colour, label in (
        ("positive", _MODEL, "positive predictive value"),
        ("negative", "#4a7ab5", "negative predictive value"),
    ):
        some = [row for row in rows if row[name]["value"] is not None]
        _band(axes, [row["prevalence"] for row in some], [row[name] for row in some], colour, label)
    axes.set_xscale("log")
    at = [row["prevalence"] for row in rows]
    axes.set_xticks(at, [f"{100 * one:g} %" for one in at])
    axes.minorticks_off()
    axes.set(xlabel=f"prevalence of {has}", ylabel="predictive value", ylim=(0, 1.02))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, fontsize=9)


def _band(axes: Axes, at: list[float], figures: list[dict[str, Any]], colour: str, label: str) -> None:
    axes.fill_between(
        at, [one["low"] for one in figures], [one["high"] for one in figures], color=colour, alpha=0.18, linewidth=0
    )
    axes.plot(at, [one["value"] for one in figures], color=colour, marker=".", label=label)
