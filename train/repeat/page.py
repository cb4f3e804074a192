"""Repeated training as one self-contained HTML page: the answer, a chart of the runs, tables, and the method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from stageproof.train.repeat.summary import METRICS, heads, rows, warnings
from stageproof.train.reports.charts.images import new_figure, svg
from stageproof.train.reports.clinical_sections import Section
from stageproof.train.reports.formatting import format_figure, number
from stageproof.train.reports.templates import html


def page(facts: dict[str, Any], links: Sequence[str] = ()) -> str:
    """The HTML text. facts: the content of `repeat.json`. links: pages of the runs, relative to this one."""
    name = "patient_accuracy" if "patient_accuracy" in facts["metrics"] else "accuracy"
    main = format_figure({**facts["metrics"][name], "value": facts["metrics"][name]["mean"]}, True)
    return html(
        "train/repeat/repeat.html.j2",
        title=f"{len(facts['seeds'])} runs of recipe {facts['recipe']['name']} with different seeds",
        facts=facts,
        people="unknown patients" if facts["data"]["patients"] is None else f"{facts['data']['patients']} patients",
        answer=f"Mean {METRICS[name]} over {len(facts['seeds'])} runs: {main}; "
        f"of slices, always predicting the largest class: {number(facts['data']['largest_class'], True)}.",
        warnings=warnings(facts),
        chart=svg(draw(facts)),
        level=f"{facts['method']['level']:.0%}",
        metrics=Section("Metrics", "", heads(facts), tuple(rows(facts))),
        runs=_runs(facts),
        links=links,
    )


def draw(facts: dict[str, Any]) -> Figure:
    """Each metric: the value of every run, their mean and its interval."""
    names = list(facts["metrics"])
    figure = new_figure(4.9, 0.6 * len(names) + 0.7)
    axes = figure.subplots()
    for at, name in enumerate(names):
        values = [run[name] for run in facts["runs"] if run[name] is not None]
        axes.plot(values, [at + 0.18] * len(values), "o", markerfacecolor="white", color="#4a7ab5")
        one = facts["metrics"][name]
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [at - 0.18] * 2, color="#1b3a5c", linewidth=2)
        if one["mean"] is not None:
            axes.plot(one["mean"], at - 0.18, "D", color="#1b3a5c")
    axes.set_yticks(range(len(names)), [METRICS[name].replace(" of ", "\nof ") for name in names], fontsize=9)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("share (1 is best)", fontsize=9)
    axes.grid(axis="x", color="0.93")
    axes.set_axisbelow(True)
    return figure


def _runs(facts: dict[str, Any]) -> Section:
    names = list(facts["metrics"])
    body = tuple(
        (str(run["seed"]), *("not defined" if run[name] is None else number(run[name], True) for name in names))
        for run in facts["runs"]
    )
    return Section("Runs", "", ("seed", *(METRICS[name] for name in names)), body)
