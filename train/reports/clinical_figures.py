"""Decision curve and predictive values as pictures, from `evaluation.json`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes

_MODEL, _ALL = "#c0392b", "#7f8c8d"


def clinical_pictures(facts: dict[str, Any]) -> dict[str, Callable[[Axes], None]]:
    """File name → what draws it; none for what is not estimable. facts: the content of `evaluation.json`."""
    drawn: dict[str, Callable[[Axes], None]] = {}
    if (facts.get("net_benefit") or {}).get("curve"):
        drawn["net-benefit.png"] = lambda axes: _net_benefit(axes, facts["net_benefit"]["curve"])
    if (facts.get("predictive_values") or {}).get("at"):
        drawn["predictive-values.png"] = lambda axes: _predictive(axes, facts["predictive_values"]["at"])
    return drawn


def _net_benefit(axes: Axes, curve: list[dict[str, Any]]) -> None:
    at = [row["threshold"] for row in curve]
    for name, colour, label in (("treat_all", _ALL, "act on everybody"), ("model", _MODEL, "act as the model says")):
        _band(axes, at, [row[name] for row in curve], colour, label)
    axes.axhline(0, color="black", linewidth=1, label="act on nobody")
    highest = max(row[name]["high"] for row in curve for name in ("model", "treat_all"))
    axes.set(
        xlabel="probability of dementia from which somebody would act",
        ylabel="net benefit, true positives per patient",
        xlim=(0, 1),
        ylim=(-0.6 * highest, 1.05 * highest),
    )
    axes.legend(loc="lower left", fontsize=8)


def _predictive(axes: Axes, rows: list[dict[str, Any]]) -> None:
    for name, colour, label in (
        ("positive", _MODEL, "predicted demented: share who are"),
        ("negative", "#4a7ab5", "predicted not demented: share who are not"),
    ):
        some = [row for row in rows if row[name]["value"] is not None]
        _band(axes, [row["prevalence"] for row in some], [row[name] for row in some], colour, label)
    axes.set_xscale("log")
    at = [row["prevalence"] for row in rows]
    axes.set_xticks(at, [f"{100 * one:g} %" for one in at])
    axes.minorticks_off()
    axes.set(xlabel="people with dementia among those imaged", ylabel="predictive value", ylim=(0, 1.02))
    axes.legend(loc="lower right", fontsize=8)


def _band(axes: Axes, at: list[float], figures: list[dict[str, Any]], colour: str, label: str) -> None:
    axes.fill_between(
        at, [one["low"] for one in figures], [one["high"] for one in figures], color=colour, alpha=0.18, linewidth=0
    )
    axes.plot(at, [one["value"] for one in figures], color=colour, marker=".", label=label)
