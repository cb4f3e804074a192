"""Data without a class: looked at, judged and trained on; what cannot be said of the class is said to be unknown."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.dataset import prepare
from stageproof.train.data.phantom.__main__ import draw_slice
from stageproof.train.evaluate.warning_messages import absent_warnings
from stageproof.train.metrics.classification import Answers, decision_scores
from stageproof.train.metrics.with_intervals import Summary

slow = pytest.mark.slow
STAGES = [(0, 1, 2), (3,), pytest.param((1, 2, 3), marks=slow), pytest.param((0, 3), marks=slow)]


def write_people(root: Path, stages, people: int = 6) -> Path:
    """Class folders of phantoms, three slices a person, and beside them a file that says who is who."""
    for stage in stages:
        (root / LABELS[stage]).mkdir(parents=True)
        for person in range(5000 + 100 * stage, 5000 + 100 * stage + people):
            for level in (0.3, 0.5, 0.7):
                pixels = draw_slice(stage, person, level, size=48)
                Image.fromarray(pixels).save(root / LABELS[stage] / f"{person}_{level}.png")
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    with root.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "group"), *((name, Path(name).name.split("_")[0]) for name in names)])
    return root


def every_figure(found) -> list[dict]:
    if isinstance(found, dict):
        if "value" in found:
            return [found]
        found = list(found.values())
    return [figure for one in found for figure in every_figure(one)] if isinstance(found, list) else []


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_a_test_set_without_a_class_is_evaluated_and_nothing_is_invented_of_it(small_run, tmp_path, capsys, stages):
    from stageproof.train.evaluate.__main__ import main

    data, out = write_people(tmp_path / "slices", stages), tmp_path / "out"
    arguments = ["--data", str(data), "--groups", str(tmp_path / "slices.csv"), "--resamples", "200"]
    assert main([str(small_run), *arguments, "--out", str(out)]) == 0
    facts = json.loads((out / "evaluation.json").read_text(), parse_constant=pytest.fail)
    absent = [label for stage, label in enumerate(LABELS) if stage not in stages]
    assert any(f"NO SLICE OF {', '.join(absent)}: " in warning for warning in facts["warnings"])
    for level in ("slices", "patients"):
        assert facts[level]["counted"] == [LABELS[stage] for stage in stages]
        for label in absent:
            figures = facts[level]["classes"][label]
            for name in ("precision", "recall", "f1", "auc"):
                assert figures[name]["value"] is None
                assert figures[name]["why"].startswith("not estimable")
        assert all(figure["value"] is None or np.isfinite(figure["value"]) for figure in every_figure(facts[level]))
    printed = capsys.readouterr().out
    for label in absent:
        assert f"recall {label}".ljust(32) + "not estimable" in printed
    assert "nan" not in ((out / "report.html").read_text() + printed).lower().split()


@pytest.mark.parametrize("stages", STAGES[1:], ids=str)
def test_a_set_without_a_class_is_audited(tmp_path, stages):
    from stageproof.train.audit.__main__ import main

    data = write_people(tmp_path / "slices", stages)
    assert main(["--data", str(data), "--groups", str(tmp_path / "slices.csv"), "--out", str(tmp_path / "audit")]) == 0
    findings = json.loads((tmp_path / "audit" / "audit.json").read_text(), parse_constant=pytest.fail)
    assert findings["slices_by_class"] == {label: 18 * (stage in stages) for stage, label in enumerate(LABELS)}


def test_training_names_the_class_it_cannot_learn_and_needs_two(tmp_path):
    settings = {"max_unreadable": 0.0, "split": "patient", "fold": 0, "folds": 2, "seed": 0}
    spec = InputSpec.imagenet(16)
    two = write_people(tmp_path / "two", (0, 2))
    prepared = prepare(two, spec, **settings, groups=tmp_path / "two.csv")
    assert prepared.absent == (LABELS[1], LABELS[3])
    one = write_people(tmp_path / "one", (2,))
    with pytest.raises(
        DatasetError, match=r"has images of MildDemented alone; training needs images of two classes or more"
    ):
        prepare(one, spec, **settings, groups=tmp_path / "one.csv")


def test_what_is_said_of_a_run_that_was_never_shown_a_class():
    counts = dict.fromkeys(LABELS, 3)
    facts, record = {"data": {"slices_by_class": counts}}, {"data": {"slices_by_class": {**counts, LABELS[3]: 0}}}
    (said,) = absent_warnings(facts, record)
    assert said.startswith("NEVER TRAINED ON ModerateDemented")
    assert absent_warnings(facts, {"data": {"slices_by_class": counts}}) == []


def test_the_agreement_of_slices_of_one_class_is_not_defined():
    chances = np.eye(4)[[0, 1, 0, 2, 3, 0]]
    answers = Answers(chances, np.zeros(6, np.int64), np.arange(6), FOUR_STAGES)
    assert np.isnan(decision_scores(answers, np.ones((1, 6)), [0])["kappa"]).all()
    figure = Summary(answers).decisions()["kappa"]
    assert (figure["value"], figure["why"]) == (None, "not estimable: there is only one class")
