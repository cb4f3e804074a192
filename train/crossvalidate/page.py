"""A cross-validation as one self-contained HTML page: the answer, a forest plot, tables, and what was selected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stageproof.train.crossvalidate.pooling import LEVELS
from stageproof.train.crossvalidate.text import explained, spread, titles_of, warnings
from stageproof.train.reports.charts.images import new_figure, svg
from stageproof.train.reports.clinical_sections import Section
from stageproof.train.reports.formatting import CALIBRATION, format_figure, number, people_in, pick, question
from stageproof.train.reports.templates import html
from stageproof.train.runs.record import reported_classes
from stageproof.train.runs.selection import selection_sentence, selections

_DRAWN = ("accuracy", "balanced_accuracy", "positive.auc")
_FOLD, _MEAN, _POOLED = "#4a7ab5", "#1b3a5c", "#c0392b"


def page(facts: dict[str, Any], records: Sequence[dict[str, Any]], links: Sequence[str] = ()) -> str:
    """The HTML text. facts: the content of `crossvalidation.json`. records: `run.json` of every fold, in order.

    links: pages of the runs of the folds, relative to this one.
    """
    level = "patients" if facts["patients"] else "slices"
    return html(
        "train/crossvalidate/crossvalidation.html.j2",
        title=f"Cross-validation of recipe {facts['recipe']['name']}, {facts['split']['folds']} folds",
        facts=facts,
        level=level,
        people=people_in(facts["data"]),
        answer=_answer(facts, level),
        warnings=warnings(facts),
        forest=svg(forest_plot(facts, level)),
        interval_level=f"{facts['method']['level']:.0%}",
        metrics=[_metrics(facts, name) for name in LEVELS if facts[name]],
        explained=" ".join(explained(facts)),
        folds=_folds(facts, level),
        links=links,
        selected=_selected(facts, records[0]),
        selection=_sentences(records),
        calibration=_calibration(facts["calibration"] or {}),
    )


def _answer(facts: dict[str, Any], level: str) -> str:
    over, folds = facts["over_folds"][level], facts["split"]["folds"]
    accuracy, auc = spread(over["accuracy"], True, folds), spread(over["positive.auc"], False, folds)
    asked = question(reported_classes(facts))
    return (
        f"Mean accuracy of {level} over {folds} folds: {accuracy}; of always predicting the largest class: "
        f"{number(facts[level]['largest_class'], True)}. {asked[:1].upper()}{asked[1:]}: AUC {auc}."
    )


def forest_plot(facts: dict[str, Any], level: str) -> Figure:
    """For each main metric the folds, their mean and the pooled value, one below another."""
    count = len(facts["folds"])
    figure = new_figure(4.9, len(_DRAWN) * (0.24 * (count + 2) + 0.45) + 0.5)
    for axes, path in zip(figure.subplots(len(_DRAWN), 1, sharex=True), _DRAWN, strict=True):
        draw_forest(axes, facts, level, path)
    axes.set_xlabel("value (1 is best)", fontsize=9)
    return figure


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
    reference = 0.5 if path == "positive.auc" else facts[level]["largest_class"] if path == "accuracy" else None
    if reference is not None:
        axes.axvline(reference, color="0.6", linestyle=":", linewidth=1)
    axes.axhline(len(held) - 0.5, color="0.85", linewidth=0.8)
    axes.set_yticks(range(len(names) + 2), [*names, "mean of folds", "pooled"], fontsize=9)
    axes.set_ylim(len(names) + 1.6, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_title(titles_of(reported_classes(facts))[path][0], loc="left", fontsize=10)
    axes.grid(axis="x", color="0.93")
    axes.set_axisbelow(True)


def _metrics(facts: dict[str, Any], level: str) -> Section:
    rows = []
    for path, (title, share) in titles_of(reported_classes(facts)).items():
        mean = spread(facts["over_folds"][level][path], share, facts["split"]["folds"])
        rows.append((title, mean, format_figure(pick(facts[level], path), share)))
    rows.append(("always predicting the largest class", "", number(facts[level]["largest_class"], True)))
    heads = (f"{facts['data'][level]} {level}", "mean of folds [95 %], SD of folds", "pooled [95 %]")
    return Section(f"Metrics of {level}", "", heads, tuple(rows))


def _folds(facts: dict[str, Any], level: str) -> Section:
    sizes = ["slices", *(["patients"] if facts["data"]["patients"] is not None else [])]
    titles = titles_of(reported_classes(facts))
    rows = []
    for at, fold in enumerate(facts["folds"], 1):
        values = [(fold[level][path], share) for path, (_, share) in titles.items()]
        shown = ["not defined" if value is None else number(value, share) for value, share in values]
        rows.append((str(at), *(str(fold["held_out"][name]) for name in sizes), *shown))
    heads = ("fold", *(f"{name} held out" for name in sizes), *(title for title, _ in titles.values()))
    return Section("Folds", "", heads, tuple(rows), f"Values of {level} in each fold alone.")


def _selected(facts: dict[str, Any], record: dict[str, Any]) -> Section:
    found = selections(record, fitted=facts["calibration"] is not None, threshold=False, own=True)
    rows = tuple((one["what"], one["by"], one["on"]) for one in found)
    return Section("What was selected, and on which slices", "", ("selected", "by", "on"), rows)


def _sentences(records: Sequence[dict[str, Any]]) -> list[str]:
    """How the epoch was selected; the folds have one recipe, and their sentences may differ in numbers."""
    sentences = [selection_sentence(record) for record in records]
    if len(set(sentences)) == 1:
        return [f"All folds: {sentences[0]}"]
    return [f"Fold {at}: {sentence}" for at, sentence in enumerate(sentences, 1)]


def _calibration(calibration: dict[str, Any]) -> Section:
    heads = {"before": "slices, before temperature", "after": "slices, after temperature", "patients": "studies"}
    sides = [side for side in heads if calibration.get(side)]
    rows = [(title, *(format_figure(calibration[side][name], False) for side in sides)) for title, name in CALIBRATION]
    return Section(
        "Calibration",
        "",
        ("", *(heads[side] for side in sides)),
        tuple(rows if sides else ()),
        "Each temperature is fitted on other patients of the same fold than those it is evaluated on. Lower is better "
        "in every row.",
    )
