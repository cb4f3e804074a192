"""Pictures of an evaluation as PNG, made from `evaluation.json` and the predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from stageproof.runtime.labels import LabelSet
from stageproof.train.metrics.classification import Answers
from stageproof.train.reports.charts.classes import chart_names, confusion_size, line_style
from stageproof.train.reports.charts.images import new_figure, png
from stageproof.train.reports.charts.probabilities import clinical_pictures, draw_reliability
from stageproof.train.reports.charts.training import draw_confusion
from stageproof.train.reports.formatting import question

_SLICES, _PATIENTS = "#4a7ab5", "#c0392b"
_WIDEST = 12.8
"""Width of a page, in inches."""


def pictures(
    facts: dict[str, Any], slices: Answers, people: Answers | None, shuffled: np.ndarray | None
) -> dict[str, bytes]:
    """File name → PNG, in the order a reader wants them.

    facts: the content of `evaluation.json`. shuffled: (shuffles,) the score of each shuffle of the labels.
    """
    classes = slices.classes
    rows = _rows(classes)
    drawn = {
        "figures.png": _drawn((4.9, 1 + 0.38 * len(rows)), lambda axes: draw_figures(axes, facts, rows)),
        "confusion.png": _confusions(facts, classes),
        "roc.png": _drawn((4.6, 4.4), lambda axes: _roc(axes, slices, people)),
    }
    if len(classes) > 2:  # of two classes, each has the other's curve
        drawn["roc-classes.png"] = _class_rocs(facts, slices, people)
    drawn["reliability.png"] = _reliability(facts)
    drawn["risk-coverage.png"] = _drawn((4.9, 3.8), lambda axes: _risk(axes, facts))
    drawn |= {name: _drawn((4.9, 3.8), draw) for name, draw in clinical_pictures(facts, classes).items()}
    if shuffled is not None:
        drawn["control.png"] = _drawn((4.9, 3.9), lambda axes: _control(axes, facts, shuffled))
    return drawn


def _drawn(size: tuple[float, float], draw: Callable[[Axes], None]) -> bytes:
    figure = new_figure(*size)
    draw(figure.subplots())
    return png(figure)


def _levels(facts: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(name, colour, figures) of slices, and of patients where they are known."""
    both = [("slices", _SLICES, facts["slices"]), ("patients", _PATIENTS, facts["patients"])]
    return [(name, colour, level) for name, colour, level in both if level]


Row = tuple[str, Callable[[dict[str, Any]], dict[str, Any]]]


def _rows(classes: LabelSet) -> list[Row]:
    """Name of each main metric, and the function that picks it from the metrics of a level."""
    asked, two = question(classes), len(classes) == 2
    rows: list[Row] = [
        ("accuracy", lambda level: level["accuracy"]),
        ("balanced accuracy", lambda level: level["balanced_accuracy"]),
        *([] if two else [(f"{asked}: accuracy", lambda level: level["positive"]["accuracy"])]),
        (f"{asked}: AUC", lambda level: level["positive"]["auc"]),
        *([] if two else [("macro AUC", lambda level: level["macro"]["auc"])]),
        ("Cohen's kappa" if two else "weighted kappa", lambda level: level["kappa"]),
    ]
    shown = zip(classes.names, chart_names(classes), strict=True)
    return [*rows, *((f"recall {short}", _recall_of(name)) for name, short in shown)]


def _recall_of(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda level: level["classes"][name]["recall"]


def draw_figures(axes: Axes, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """Each main metric with its interval, of slices and of patients, one below another. rows: of `_rows`."""
    levels = _levels(facts)
    for name, colour, _ in levels:  # also if none of its figures is estimable
        axes.plot([], [], "o", color=colour, markersize=5, label=name)
    for row, (_, pick) in enumerate(rows):
        for offset, (_, colour, level) in zip((-0.16, 0.16), levels, strict=False):
            figure, height = pick(level), len(rows) - row - offset
            if figure["value"] is None:
                axes.text(0.01, height, "not estimable", color=colour, fontsize=7, va="center")
                continue
            if figure["low"] is not None:
                axes.plot([figure["low"], figure["high"]], [height, height], color=colour, linewidth=2)
            axes.plot(figure["value"], height, "o", color=colour, markersize=5)
    axes.set_yticks(range(len(rows), 0, -1), [name for name, _ in rows])
    axes.set_ylim(0.4, len(rows) + 0.6)
    lows = [pick(level)["low"] for _, pick in rows for _, _, level in levels]
    axes.set_xlim(min([0.0, *(low for low in lows if low is not None)]) - 0.02, 1.02)
    axes.set_xlabel("value and 95 % interval; 1 is best")
    axes.grid(axis="x", color="0.9")
    axes.set_axisbelow(True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=2, frameon=False)


def _confusions(facts: dict[str, Any], classes: LabelSet) -> bytes:
    levels, (width, height) = _levels(facts), confusion_size(classes)
    beside = width * len(levels) <= _WIDEST
    rows, columns = (1, len(levels)) if beside else (len(levels), 1)
    figure = new_figure(width * columns, height * rows)
    for axes, (name, _, level) in zip(figure.subplots(rows, columns, squeeze=False).flat, levels, strict=True):
        counts = np.array(level["confusion"])
        draw_confusion(axes, counts, classes, f"{counts.sum()} {name}")
    return png(figure)


def _roc(axes: Axes, slices: Answers, people: Answers | None) -> None:
    from sklearn.metrics import roc_curve

    for name, colour, answers in (("slices", _SLICES, slices), ("patients", _PATIENTS, people)):
        if answers is not None and len(np.unique(answers.positive)) == 2:
            false, true, _ = roc_curve(answers.positive, answers.positive_probability)
            axes.plot(false, true, color=colour, label=name)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", title=question(slices.classes), aspect="equal")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower right", frameon=False)


def _class_rocs(facts: dict[str, Any], slices: Answers, people: Answers | None) -> bytes:
    given = [("slices", slices), *([("patients", people)] if people is not None else [])]
    figure = new_figure(4.9 * len(given), 5.3 + 0.2 * len(slices.classes))
    for axes, (level, answers) in zip(figure.subplots(1, len(given), squeeze=False)[0], given, strict=True):
        draw_class_rocs(axes, level, facts[level]["classes"], answers)
    return png(figure)


def draw_class_rocs(axes: Axes, level: str, classes: dict[str, Any], answers: Answers) -> None:
    """ROC curves of each class against all others, with the AUC and interval of `evaluation.json` in the legend."""
    from sklearn.metrics import roc_curve

    names = zip(answers.classes.names, chart_names(answers.classes), strict=True)
    for at, (label, short) in enumerate(names):
        style = line_style(at, answers.classes)
        mine, auc = answers.labels == at, classes[label]["auc"]
        text = "AUC not estimable" if auc["value"] is None else f"AUC {auc['value']:.3f}"
        if auc["low"] is not None:
            text += f" [{auc['low']:.3f}, {auc['high']:.3f}]"
        if 0 < mine.sum() < len(mine):
            false, true, _ = roc_curve(mine, answers.probabilities[:, at])
            axes.plot(false, true, label=f"{short}: {text}", **style)
        else:
            axes.plot([], [], label=f"{short}: no curve, one class only", **style)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    axes.set(xlabel="1 − specificity", ylabel="sensitivity", title=f"{len(answers.labels)} {level}", aspect="equal")
    axes.set_anchor("N")  # so that the space below is left to the legend
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), frameon=False, fontsize=9)


def _reliability(facts: dict[str, Any]) -> bytes:
    figure = new_figure(4.9, 5)
    draw_reliability(figure, facts)
    return png(figure)


def _risk(axes: Axes, facts: dict[str, Any]) -> None:
    for name, colour in (("slices", _SLICES), ("patients", _PATIENTS)):
        curve = facts["risk"][name]
        if curve is None or curve["risk"][-1] is None:
            continue
        axes.plot(curve["coverage"], curve["risk"], color=colour, marker=".", label=name)
        known = [at for at, low in enumerate(curve["low"]) if low is not None]
        if known:
            at, low, high = ([curve[name][one] for one in known] for name in ("coverage", "low", "high"))
            axes.fill_between(at, low, high, color=colour, alpha=0.12, linewidth=0)
    axes.set(
        xlabel="coverage: share of predictions given, most confident first",
        ylabel="error rate of predictions given",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False)


def _control(axes: Axes, facts: dict[str, Any], shuffled: np.ndarray) -> None:
    control = facts["control"]["permutation"]
    axes.hist(shuffled, bins=40, color="0.75", label="labels shuffled among patients")
    axes.axvline(control["chance"], color="0.4", linestyle=":", label="chance")
    axes.axvline(control["score"], color=_PATIENTS, label="true labels")
    axes.set(xlabel="balanced accuracy of slices", ylabel="number of shuffles")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, fontsize=9)
