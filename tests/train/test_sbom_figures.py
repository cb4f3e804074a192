"""The model card in a bill of materials has the figures of the evaluation, and of no other one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stageproof.export.sbom.model_card import EVALUATED, model_card
from stageproof.runtime.bundle.manifest import Manifest
from stageproof.runtime.model_info import ModelInfo
from stageproof.train.runs.record import read_evaluation, read_record
from tests.train.copied_runs import copied


def manifest_of(run: Path) -> Manifest:
    record = read_record(run)
    info = ModelInfo.from_dict({**record, "digest": record["weights_sha256"]}, str(run))
    provenance = {"run": run.name, "dataset": "user data", "dataset_digest": "ab" * 32, "split": record["split"]}
    return Manifest(info, (), provenance)


def at(facts: dict, metric: dict) -> dict:
    """The figure in `evaluation.json` that a performanceMetric names."""
    part, _, label = metric["slice"].partition(", class ")
    found = facts[part]["classes"][label] if label else facts[part]
    for name in metric["type"].split("."):
        found = found[name]
    return found


def test_every_figure_and_interval_is_that_of_the_evaluation(evaluated):
    facts = read_evaluation(evaluated / "evaluation")
    card = model_card(manifest_of(evaluated), evaluated)
    metrics = card["quantitativeAnalysis"]["performanceMetrics"]
    for metric in metrics:
        figure = at(facts, metric)
        assert (float(metric["value"]) if "value" in metric else None) == figure["value"]
        interval = metric.get("confidenceInterval")
        ends = interval and (float(interval["lowerBound"]), float(interval["upperBound"]))
        assert ends == (None if figure["low"] is None else (figure["low"], figure["high"]))
    names = [(metric["slice"], metric["type"]) for metric in metrics]
    assert len(set(names)) == len(names)
    assert {("slices", "accuracy"), ("patients", "positive.auc"), ("slices, class MildDemented", "recall")} <= set(
        names
    )
    assert {slice.partition(",")[0] for slice, _ in names} == set(EVALUATED)
    assert sum("confidenceInterval" in metric for metric in metrics) > 60
    found: list[dict] = []
    json.loads(json.dumps({part: facts[part] for part in EVALUATED}), object_hook=lambda one: found.append(one) or one)
    assert len(metrics) == sum({"value", "low"} <= set(one) for one in found), "none is left out"
    training, held_out = card["modelParameters"]["datasets"]
    listed = {one["name"]: one["value"] for one in held_out["contents"]["properties"]}
    assert listed["stageproof:slices"] == str(facts["data"]["slices"])
    assert listed["stageproof:patients"] == str(facts["data"]["patients"])
    assert {"name": "stageproof:slices", "value": str(facts["data"]["training"]["slices"])} in training["contents"][
        "properties"
    ]


def test_what_is_not_estimable_has_a_reason_and_no_value(evaluated, tmp_path):
    run = copied(evaluated, tmp_path)
    facts = json.loads((run / "evaluation" / "evaluation.json").read_text())
    facts["slices"]["kappa"] |= {"value": None, "low": None, "high": None, "why": "not estimable: one class"}
    (run / "evaluation" / "evaluation.json").unlink()
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(facts))
    card = model_card(manifest_of(run), run)
    assert {"type": "kappa", "slice": "slices"} in card["quantitativeAnalysis"]["performanceMetrics"]
    assert {"name": "stageproof:not-estimable:slices.kappa", "value": "not estimable: one class"} in card["properties"]


@pytest.mark.parametrize(
    "change",
    [{"weights_sha256": "0" * 64}, {"created": "2020-01-01T00:00:00Z"}, {"calibration": {"temperature": 9.0}}],
    ids=lambda change: next(iter(change)),
)
def test_figures_of_another_evaluation_are_left_out_with_a_warning(evaluated, tmp_path, said, change):
    run = copied(evaluated, tmp_path)
    path = run / "evaluation" / "evaluation.json"
    facts = {**json.loads(path.read_text()), **change}
    path.unlink()
    path.write_text(json.dumps(facts))
    card = model_card(manifest_of(run), run)
    assert "quantitativeAnalysis" not in card
    assert any("is not the evaluation that calibrated this model" in line for line in said)
    assert "The evaluation beside the run describes another model." in card["considerations"]["technicalLimitations"]


def test_a_removed_evaluation_is_a_warning_and_a_run_without_one_is_not(evaluated, small_run, tmp_path, said):
    run = copied(evaluated, tmp_path)
    (run / "evaluation" / "evaluation.json").unlink()
    assert "quantitativeAnalysis" not in model_card(manifest_of(run), run)
    assert any("the bill of materials has no figures" in line for line in said)
    said.clear()
    card = model_card(manifest_of(small_run), small_run)
    assert "quantitativeAnalysis" not in card
    assert not said
    assert any("was not evaluated" in line for line in card["considerations"]["technicalLimitations"])
