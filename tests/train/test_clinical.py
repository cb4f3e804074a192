"""Who the patients were and what figures mean elsewhere: each quantity against a count by hand or scipy."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.train.data.sources.age_and_sex import NOT_RECORDED, Traits, age_in_years, sex_of, traits_of
from stageproof.train.evaluate.demographics import by_patient, described
from stageproof.train.evaluate.demographics import subgroups as figures_of
from stageproof.train.evaluate.flow import flow, parts_of
from stageproof.train.metrics.classification import Answers
from stageproof.train.metrics.intervals import exact_ends
from stageproof.train.metrics.net_benefit import net_benefit
from stageproof.train.metrics.prevalence import predictive_values
from stageproof.train.metrics.two_proportions import difference_ends, ratio_ends
from stageproof.train.metrics.with_intervals import Summary
from stageproof.train.reports.clinical_sections import all_sections, demographics, flow_section, subgroups
from stageproof.train.reports.facts import Facts
from stageproof.train.reports.flow_diagram import boxes, rows
from stageproof.train.runs.selection import selected_on_evaluated, selections


def test_exact_ends_are_those_of_scipy():
    right, total = np.array([0, 1, 7, 19, 20]), 20
    low, high = exact_ends(right, total)
    for at, count in enumerate(right):
        found = stats.binomtest(int(count), total).proportion_ci(method="exact")
        assert (low[at], high[at]) == pytest.approx((found.low, found.high))


def test_net_benefit_is_that_of_a_count_by_hand():
    """Ten patients, six with dementia. At 0.25: 5 true and 2 false positives; at 0.75: 3 and 0."""
    positive = np.array([True] * 6 + [False] * 5)
    probabilities = np.array([0.9, 0.8, 0.75, 0.6, 0.3, 0.1, 0.5, 0.25, 0.2, 0.1, 0.05])
    first, second = net_benefit(probabilities, positive, (0.25, 0.75))["curve"]
    assert (first["true_positives"], first["false_positives"]) == (5, 2)
    assert first["model"]["value"] == pytest.approx(5 / 11 - 2 / 11 / 3)
    assert first["treat_all"]["value"] == pytest.approx(6 / 11 - 5 / 11 / 3)
    assert first["over_all"]["value"] == pytest.approx(first["model"]["value"] - first["treat_all"]["value"])
    assert (second["true_positives"], second["false_positives"]) == (3, 0)
    assert second["model"]["value"] == pytest.approx(3 / 11)
    for row in (first, second):
        for name in ("model", "treat_all", "over_all"):
            assert row[name]["low"] < row[name]["value"] < row[name]["high"]


def test_acting_on_everybody_is_the_model_that_always_says_demented():
    positive = np.arange(30) % 3 == 0
    for row in net_benefit(np.ones(30), positive)["curve"]:
        assert row["model"]["value"] == pytest.approx(row["treat_all"]["value"])
        assert row["over_all"]["value"] == pytest.approx(0)


def test_net_benefit_of_too_few_patients_is_not_estimable():
    found = net_benefit(np.full(12, 0.5), np.arange(12) < 4)
    assert found["curve"] is None
    assert found["why"].startswith("not estimable: 4 positive and 8 negative patients")


def test_predictive_values_are_bayes_rule_and_at_the_own_prevalence_a_count():
    positive = np.array([True] * 20 + [False] * 60)
    decided = np.array([True] * 15 + [False] * 5 + [True] * 6 + [False] * 54)
    own, rare = predictive_values(decided, positive, (0.25, 0.01))["at"]
    assert own["positive"]["value"] == pytest.approx(15 / 21)
    assert own["negative"]["value"] == pytest.approx(54 / 59)
    assert rare["positive"]["value"] == pytest.approx(0.01 * 0.75 / (0.01 * 0.75 + 0.99 * 0.1))
    for row in (own, rare):
        for name in ("positive", "negative"):
            assert row[name]["low"] < row[name]["value"] < row[name]["high"]


@pytest.mark.parametrize(("caught", "cleared"), [(20, 20), (0, 0), (0, 20), (20, 0), (19, 20)])
def test_predictive_values_at_the_edges(caught, cleared):
    """Perfect, always wrong, and one answer for everybody: an interval, or the reason for none; never NaN."""
    positive = np.arange(40) < 20
    decided = np.concatenate([np.arange(20) < caught, np.arange(20) >= cleared])
    for row in predictive_values(decided, positive)["at"]:
        for figure in (row["positive"], row["negative"]):
            json.dumps(figure, allow_nan=False)
            if figure["value"] is None:
                assert "no patient was predicted" in figure["why"]
            else:
                assert 0 <= figure["low"] <= figure["value"] <= figure["high"] <= 1
                assert figure["high"] - figure["low"] > 0.001


def test_ratio_and_difference_agree_with_a_bootstrap_where_patients_are_many():
    rng = np.random.default_rng(0)
    value, low, high = ratio_ends(300, 400, 80, 400)
    drawn = rng.binomial(400, 0.75, 20_000) / rng.binomial(400, 0.2, 20_000)
    assert value == pytest.approx(3.75)
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), rel=0.02)
    ends = difference_ends(np.array(300), np.array(80), 800, 0.5)
    draws = rng.multinomial(800, [0.375, 0.1, 0.525], 20_000) / 800
    wanted = np.quantile(draws[:, 0] - 0.5 * draws[:, 1], [0.025, 0.975])
    assert np.array(ends) == pytest.approx(wanted, abs=0.003)


def test_ages_and_sexes_as_tables_write_them():
    assert [age_in_years(text) for text in ("71", "71.5", "89+", ">89", "071Y", "018M", 64)] == [
        71, 71.5, 89, 89, 71, 1.5, 64,
    ]  # fmt: skip
    assert all(np.isnan(age_in_years(text)) for text in ("", "n/a", "999", "-1", "seventy", None, float("nan")))
    assert [sex_of(text) for text in ("F", "female", "M", "Male", "other", "n/a", "1", 2, None)] == [
        "female", "female", "male", "male", "other", *[NOT_RECORDED] * 4,
    ]  # fmt: skip


def test_traits_from_a_csv_a_parquet_and_participants(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "list.csv").write_text("path,label,Age,M/F\na.png,x,70,F\nb.png,x,n/a,M\n")
    found = traits_of(tmp_path / "list.csv", ["b.png", "a.png", "gone.png"])
    assert found is not None
    assert list(found.sexes) == ["male", "female", NOT_RECORDED]
    assert found.ages[1] == 70
    assert np.isnan(found.ages[[0, 2]]).all()
    pq.write_table(pa.table({"label": [0, 0], "age": [60, None], "sex": ["m", "f"]}), tmp_path / "two.parquet")
    found = traits_of(tmp_path / "two.parquet", ["000001/x.png", "000000/y.png"])
    assert found is not None
    assert list(found.sexes) == ["female", "male"]
    assert found.ages[1] == 60
    folder = tmp_path / "slices"
    folder.mkdir()
    assert traits_of(folder, ["sub-01_a.png"]) is None
    (folder / "participants.tsv").write_text("participant_id\tage\tsex\nsub-01\t89+\tF\nsub-012\t50\tM\n")
    found = traits_of(folder, ["NonDemented/sub-012_a.png", "NonDemented/sub-01_a.png", "x.png"])
    assert found is not None
    assert found.ages[:2].tolist() == [50, 89]
    assert np.isnan(found.ages[2])


def test_demographics_count_patients_and_not_slices():
    traits = Traits(
        np.array([70, 70, 70, 60, np.nan, np.nan]),
        np.array(["female", "female", NOT_RECORDED, "male", "male", "female"], dtype=object),
        "a table",
    )
    ages, sexes = by_patient(traits, np.array([0, 0, 0, 1, 2, 2]))
    assert sexes.tolist() == ["female", "male", NOT_RECORDED]  # slices of both sexes name nobody
    found = described(ages, sexes)
    assert found["age"] == {
        "recorded": 2,
        "mean": 65,
        "sd": pytest.approx(np.sqrt(50)),
        "min": 60,
        "median": 65,
        "max": 70,
    }
    assert found["sex"] == {"female": 1, "male": 1, "other": 0, NOT_RECORDED: 1}


def answers(count: int, seed: int = 0) -> Answers:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 4
    probabilities = rng.dirichlet(np.ones(4), count) * 0.6
    probabilities[np.arange(count), labels] += 0.4
    return Answers(probabilities, labels, np.arange(count), FOUR_STAGES)


def test_subgroups_partition_the_patients_and_say_not_estimable_where_few():
    people = answers(43)
    ages = np.where(np.arange(43) < 40, 60 + (np.arange(43) % 2) * 20.0, np.nan)
    sexes = np.array(["female"] * 30 + ["male"] * 13, dtype=object)
    found = figures_of(people, ages, sexes)
    for by in ("age", "sex"):
        assert sum(one["patients"] for one in found if one["by"] == by) == 43
    assert [one["name"] for one in found] == ["under 65", "75 to 84", NOT_RECORDED, "female", "male"]
    female, few = found[3], found[2]
    right = int((people.decisions == people.labels)[:30].sum())
    exact = stats.binomtest(right, 30).proportion_ci(method="exact")
    assert female["accuracy"]["value"] == pytest.approx(right / 30)
    assert (female["accuracy"]["low"], female["accuracy"]["high"]) == pytest.approx((exact.low, exact.high))
    assert few["accuracy"]["value"] is None
    assert "fewer than 5" in few["accuracy"]["why"]


def test_a_specificity_of_a_class_that_nobody_has_is_not_given():
    people = answers(60)
    people = Answers(people.probabilities, np.minimum(people.labels, 2), people.patients, FOUR_STAGES)
    for figure in Summary(people).decisions()["classes"][LABELS[3]].values():
        assert figure["value"] is None
        assert figure["why"].startswith("not estimable")


SOURCE = {"slices": 100, "people": 10, "unreadable": 3, "not_taken": [{"reason": "hidden files", "count": 2}]}


def test_the_flow_adds_up():
    sides = {f"{at}": (f"p{at % 10}", "training" if at % 10 < 7 else "validation") for at in range(100)}
    parts = parts_of(sides, [name for name, (_, part) in sides.items() if part == "validation"])
    found = flow(SOURCE, parts, {"slices": 30, "people": 3}, unit="patients", coverage={"slices": 0.5, "people": 1 / 3})
    assert found["source"]["found"] == 105 == 100 + 3 + 2
    assert sum(part["slices"] for part in parts) == found["source"]["slices"]
    assert [part["evaluated"] for part in parts] == [False, True]
    assert found["answered"] == {"slices": 15, "people": 1}
    assert found["abstained"] == {"slices": 15, "people": 2}
    table = {step: (slices, people) for step, slices, people in rows(found)}
    assert table["training"] == ("70", "7")
    assert table["held out"] == ("30", "3")
    steps = {box.title: (box.lines, box.kind) for step in boxes(found) for box in step}
    assert steps["Files found"] == (("105",), "next")
    assert steps["Left out"] == (("2 hidden files", "3 unreadable"), "aside")
    assert steps["Training"] == (("70 slices", "7 patients"), "")
    assert steps["Held out"] == (("30 slices", "3 patients"), "next")
    assert steps["Predicted"] == (("15 slices", "1 patients"), "next")
    assert steps["Abstained"] == (("15 slices", "2 patients"), "")


def test_a_flow_of_unknown_patients():
    source = {"slices": 4, "people": None, "unreadable": 0, "not_taken": [{"reason": "hidden", "count": 1}]}
    found = flow(source, [], {"slices": 4, "people": None}, unit=None, left_out=2)
    assert boxes(found)[0][1].lines == ("1 hidden", "0 unreadable")
    assert boxes(found)[1][0].lines == ("4 slices",)
    assert ("evaluated", "4", "unknown") in rows(found)


@pytest.mark.parametrize(
    ("recipe", "biased"),
    [({"keep": "last", "patience": 0}, False), ({"keep": "accuracy"}, True), ({"patience": 3}, True)],
)
def test_choices_on_the_evaluated_slices_are_named(recipe, biased):
    found = selections({"recipe": recipe, "split": {}}, True, False, own=True)
    assert selected_on_evaluated(found) is biased
    assert not selected_on_evaluated(selections({"recipe": recipe, "split": {}}, False, False, own=False))


def test_an_evaluation_with_ages_has_them_in_facts_report_and_card(evaluated, tmp_path):
    """The run's own data with a participants file beside it."""
    import os
    import shutil

    from stageproof.train.evaluate.__main__ import main
    from stageproof.train.runs.record import read_record

    run = Path(shutil.copytree(evaluated, tmp_path / "runs" / "aged", copy_function=os.link))
    data = Path(shutil.copytree(read_record(run)["options"]["data"], tmp_path / "slices"))
    with (run / "split.csv").open(newline="") as file:
        people = sorted({Path(row["name"]).name.split("_")[0] for row in csv.DictReader(file)})
    lines = [f"{one}\t{60 + 3 * at % 31}\t{'MF'[at // 2 % 2]}" for at, one in enumerate(people)]
    (tmp_path / "participants.tsv").write_text("\n".join(["participant_id\tage\tsex", *lines]) + "\n")
    assert main([str(run), "--data", str(data), "--out", str(run / "evaluation")]) == 0
    facts = json.loads((run / "evaluation" / "evaluation.json").read_text(), parse_constant=pytest.fail)
    parts = facts["demographics"]["parts"]
    assert [(part["name"], part["patients"]) for part in parts] == [("training", 24), ("evaluated", 24)]
    assert sum(parts[1]["sex"].values()) == 24
    assert parts[0]["age"]["recorded"] == 24
    assert {one["name"] for one in facts["subgroups"]} >= {"female", "male"}
    report, card = (run / "evaluation" / "report.html").read_text(), (run / "MODEL_CARD.md").read_text()
    found = Facts("evaluation.json", facts)
    for section in (flow_section(found), *all_sections(found)):
        assert f"<h2>{section.heading}</h2>" in report
        assert f"## {section.heading}\n" in card
        for row in section.rows:
            assert f"| {' | '.join(row)} |" in card
    assert '<div class="flow"' in report
    assert demographics(found).rows
    assert subgroups(found).rows
    for text in (section.text + section.note for section in all_sections(found)):
        assert not re.search(r"\b(?:at hand|asked|nobody's|unsaid|who is who|safe|guarantee|diagnos(?:es|e) )", text)
