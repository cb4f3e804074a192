"""Charts of 2 to 20 classes, with long names: no label is cut off, and none covers another one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.figure import Figure

from stageproof.runtime.labels import FOUR_STAGES, LabelSet, label_set
from stageproof.train.metrics.classification import Answers
from stageproof.train.metrics.with_intervals import Summary
from stageproof.train.reports.charts import evaluation, training
from stageproof.train.reports.charts.classes import chart_names

SETS = [
    label_set(["CN", "AD"]),
    FOUR_STAGES,
    label_set([f"CDR {rating}" for rating in ("0", "0.5", "1", "2", "3")]),
    label_set(["healthy control", "SMC (subjective)", "early.MCI", "MCI", "LMCI", "probable Alzheimer's", "x"]),
    label_set([f"very long name of the class of stage {at}" for at in range(20)]),
    label_set([f"{'very ' * 7}{at} long{' name' * 4}" for at in range(20)]),
]

DRAWN = [one if len(one) in (4, 7) else pytest.param(one, marks=pytest.mark.slow) for one in SETS[:-1]]


def answers_of(classes: LabelSet) -> Answers:
    rng, people = np.random.default_rng(0), 6 * len(classes)
    labels = np.arange(people) % len(classes)
    return Answers(rng.dirichlet(np.ones(len(classes)), people), labels, np.arange(people), classes)


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    figures: list[Figure] = []

    def kept(figure: Figure) -> bytes:
        figure.draw_without_rendering()
        figures.append(figure)
        return b""

    monkeypatch.setattr(evaluation, "png", kept)
    monkeypatch.setattr(training, "png", kept)
    return figures


def check(figure: Figure) -> None:
    """All text lies inside of the figure; tick labels of one axis do not overlap."""
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert min(box.x0, box.y0) > -1
        assert box.x1 < figure.bbox.x1 + 1
        assert box.y1 < figure.bbox.y1 + 1
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            for one, other in pairwise(label for label in labels if label.get_text()):
                if one.get_rotation() % 90:  # slanted: the distance between the parallel lines of text
                    apart = abs(one.get_position()[0] - other.get_position()[0])
                    pixels = axes.transData.transform((apart, 0))[0] - axes.transData.transform((0, 0))[0]
                    assert pixels * np.sin(np.deg2rad(45)) > one.get_fontsize() * figure.dpi / 72
                else:
                    assert not one.get_window_extent().overlaps(other.get_window_extent()), (one, other)


@pytest.mark.parametrize("classes", DRAWN, ids=lambda classes: f"{classes.title}-{len(classes)}")
def test_no_label_is_cut_off_or_covers_another(classes, drawn, tmp_path):
    answers = answers_of(classes)
    figures = Summary(answers).decisions()
    facts = {"slices": figures, "patients": figures}
    evaluation._confusions(facts, classes)
    evaluation._class_rocs(facts, answers, answers)
    rows = evaluation._rows(classes)
    evaluation._drawn((4.9, 1 + 0.38 * len(rows)), lambda axes: evaluation.draw_figures(axes, facts, rows))
    (tmp_path / "confusion.png").write_bytes(b"")
    training.plot_confusion(answers.decisions, answers.labels, classes, tmp_path / "confusion.png")
    assert len(drawn) == 4
    for figure in drawn:
        check(figure)


def test_names_in_charts_differ_also_where_they_begin_alike():
    for classes in SETS:
        names = chart_names(classes)
        assert len(set(names)) == len(classes)
        assert max(map(len, names)) <= 18
    assert chart_names(FOUR_STAGES) == ["Non", "VeryMild", "Mild", "Moderate"]
    assert chart_names(label_set(["Mild", "MildDemented", "X"])) == ["1: Mild", "2: Mild", "3: X"]


@pytest.mark.parametrize("missing", ["all", "the first"])
def test_the_legend_names_slices_and_patients_whose_figures_are_not_estimable(missing, drawn):
    classes = label_set(["CN", "AD"])
    figures = Summary(answers_of(classes)).decisions()
    rows = evaluation._rows(classes)
    none = {"value": None, "low": None, "high": None}
    rows = [
        (name, pick if missing == "the first" and at else lambda level: none) for at, (name, pick) in enumerate(rows)
    ]
    facts = {"slices": figures, "patients": figures}
    evaluation._drawn((4.9, 1 + 0.38 * len(rows)), lambda axes: evaluation.draw_figures(axes, facts, rows))
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["slices", "patients"]
    assert "not estimable" in {text.get_text() for text in axes.texts}
