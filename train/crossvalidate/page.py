"""A cross-validation as one self-contained HTML page: the answer, a forest plot, tables, and what was selected."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot, which keeps global state

from stageproof.runtime.text.escapes import markup as escape
from stageproof.train.crossvalidate.pooling import LEVELS, OF_FOLDS
from stageproof.train.crossvalidate.text import explained, spread, warnings
from stageproof.train.reports.formatting import CALIBRATION, ROWS, number, people_in, pick, spoken
from stageproof.train.reports.html import document, picture, table
from stageproof.train.runs.selection import selection_sentence, selections

_DRAWN = ("accuracy", "balanced_accuracy", "demented.auc")
_FOLD, _MEAN, _POOLED = "#4a7ab5", "#1b3a5c", "#c0392b"
_TITLES = {path: (title, share) for title, path, share in ROWS}


def page(facts: dict[str, Any], records: Sequence[dict[str, Any]], links: Sequence[str] = ()) -> str:
    """The HTML text. facts: the content of `crossvalidation.json`. records: `run.json` of every fold, in order.

    links: pages of the runs of the folds, relative to this one.
    """
    folds, level = facts["split"]["folds"], _level(facts)
    title = f"Cross-validation of recipe {facts['recipe']['name']}, {folds} folds"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{facts['data']['slices']} slices of {people_in(facts['data'])} from {escape(facts['data']['source'])}; "
        "each slice is predicted once, by the network of the fold that held it out.</p>",
        f'<p class="headline">{escape(_answer(facts, level))}</p>',
        *(f'<p class="warning">{escape(warning)}</p>' for warning in warnings(facts)),
        picture(forest_plot(facts, level), f"forest plot of figures of {level}: folds, their mean, pooled"),
        f'<p class="note">Figures of {level}. Open circles: the value of each fold (one fold has no interval of its '
        "own). Diamond: the mean of the folds. Square: pooled, one figure over all folds together. Lines: "
        f"{facts['method']['level']:.0%} intervals; none is drawn where none can be estimated. Dotted: accuracy of "
        "always answering the largest class, and 0.5 for the AUC, which is chance.</p>",
        *(_figures(facts, name) for name in LEVELS if facts[name]),
        f'<p class="note">{escape(" ".join(explained(facts)))}</p>',
        _folds(facts, level, links),
        _selected(facts, records),
        _calibration(facts),
        f"<h2>Method</h2><p>Split by {escape(facts['split']['by'])}, seed {facts['split']['seed']}. Intervals: "
        f"{escape(facts['method']['intervals'])}.</p>",
    ]
    return document(title, parts, "Research use only. Not a medical device.")


def _level(facts: dict[str, Any]) -> str:
    return "patients" if facts["patients"] else "slices"


def _answer(facts: dict[str, Any], level: str) -> str:
    over, folds = facts["over_folds"][level], facts["split"]["folds"]
    accuracy, auc = spread(over["accuracy"], True, folds), spread(over["demented.auc"], False, folds)
    return (
        f"Mean accuracy of {level} over {folds} folds: {accuracy}; always answering the largest class: "
        f"{number(facts[level]['largest_class'], True)}. Demented or not: AUC {auc}."
    )


def forest_plot(facts: dict[str, Any], level: str) -> bytes:
    """PNG: for each main figure the folds, their mean and the pooled figure, one below another."""
    count = len(facts["folds"])
    figure = Figure(figsize=(4.9, len(_DRAWN) * (0.24 * (count + 2) + 0.45) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, path in zip(figure.subplots(len(_DRAWN), 1, sharex=True), _DRAWN, strict=True):
        draw_forest(axes, facts, level, path)
    axes.set_xlabel("value (1 is best)", fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, dpi=120, format="png", metadata={"Software": None})
    return file.getvalue()


def draw_forest(axes: Axes, facts: dict[str, Any], level: str, path: str) -> None:
    """One figure. path: one of `OF_FOLDS`."""
    held = [fold["held_out"][level] for fold in facts["folds"]]
    names = [f"fold {at}, n = {count}" for at, count in enumerate(held, 1)]
    for at, fold in enumerate(facts["folds"]):
        if fold[level][path] is not None:
            axes.plot(fold[level][path], at, "o", markerfacecolor="white", color=_FOLD)
        else:
            axes.text(0.02, at, "not defined", va="center", fontsize=8, color="0.4")
    mean, pooled = facts["over_folds"][level][path], pick(facts[level], path)
    for at, value, one, colour, mark in (
        (len(names), mean["mean"], mean, _MEAN, "D"),
        (len(names) + 1, pooled["value"], pooled, _POOLED, "s"),
    ):
        if value is None:
            axes.text(0.02, at, "not estimable", va="center", fontsize=8, color=colour)
            continue
        if one["low"] is not None:
            axes.plot([one["low"], one["high"]], [at, at], color=colour, linewidth=2)
        axes.plot(value, at, mark, color=colour)
    reference = 0.5 if path == "demented.auc" else facts[level]["largest_class"] if path == "accuracy" else None
    if reference is not None:
        axes.axvline(reference, color="0.6", linestyle=":", linewidth=1)
    axes.axhline(len(held) - 0.5, color="0.85", linewidth=0.8)
    axes.set_yticks(range(len(names) + 2), [*names, "mean of folds", "pooled"], fontsize=9)
    axes.set_ylim(len(names) + 1.6, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_title(_TITLES[path][0], loc="left", fontsize=10)
    axes.grid(axis="x", color="0.93")
    axes.set_axisbelow(True)


def _figures(facts: dict[str, Any], level: str) -> str:
    rows = []
    for path in OF_FOLDS:
        title, share = _TITLES[path]
        mean = spread(facts["over_folds"][level][path], share, facts["split"]["folds"])
        rows.append([title, mean, spoken(pick(facts[level], path), share)])
    rows.append(["always the largest class", "", number(facts[level]["largest_class"], True)])
    heads = [f"{facts['data'][level]} {level}", "mean of folds [95 %], SD of folds", "pooled [95 %]"]
    return f"<h2>Figures of {level}</h2>{table(heads, rows)}"


def _folds(facts: dict[str, Any], level: str, links: Sequence[str]) -> str:
    people = facts["data"]["patients"] is not None
    rows = []
    for at, fold in enumerate(facts["folds"], 1):
        held = [str(fold["held_out"][name]) for name in ("slices", *(["patients"] if people else []))]
        values = [fold[level][path] for path in OF_FOLDS]
        shown = [
            "not defined" if value is None else number(value, _TITLES[path][1])
            for path, value in zip(OF_FOLDS, values, strict=True)
        ]
        rows.append([str(at), *held, *shown])
    heads = ["fold", "slices held out", *(["patients held out"] if people else [])]
    pages = ", ".join(f'<a href="{escape(link)}">{escape(link.partition("/")[0])}</a>' for link in links)
    return (
        f"<h2>Folds</h2>{table([*heads, *(_TITLES[path][0] for path in OF_FOLDS)], rows)}"
        f'<p class="note">Values of {level} in each fold alone.{f" Runs: {pages}." if links else ""}</p>'
    )


def _selected(facts: dict[str, Any], records: Sequence[dict[str, Any]]) -> str:
    """What was chosen by looking at which slices; the folds have one recipe, their sentences differ in counts."""
    found = selections(records[0], fitted=facts["calibration"] is not None, threshold=False, own=True)
    sentences = [f"Fold {at}: {selection_sentence(record)}" for at, record in enumerate(records, 1)]
    if len({selection_sentence(record) for record in records}) == 1:
        sentences = [f"All folds: {selection_sentence(records[0])}"]
    rows = [[one["what"], one["by"], one["on"]] for one in found]
    listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<h2>What was selected, and on which slices</h2>{table(['selected', 'by', 'on'], rows)}<ul>{listed}</ul>"


def _calibration(facts: dict[str, Any]) -> str:
    calibration = facts["calibration"]
    if not calibration:
        return ""
    sides = [side for side in ("before", "after", "patients") if calibration.get(side)]
    heads = {"before": "slices, before temperature", "after": "slices, after temperature", "patients": "studies"}
    rows = [[title, *(spoken(calibration[side][name], False) for side in sides)] for title, name in CALIBRATION]
    return (
        f"<h2>Calibration</h2>{table(['', *(heads[side] for side in sides)], rows)}"
        '<p class="note">Each temperature is fitted on other patients of the same fold than it is judged on. Lower is '
        "better in every row.</p>"
    )
