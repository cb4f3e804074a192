"""Results as data: frozen, typed, and the same after JSON, pickle and copy."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import pytest

from stageproof.runtime.prediction import Prediction, StudyPrediction, Timings, study
from stageproof.runtime.study import StudyRule

OK = Prediction(
    status="ok",
    label="MildDemented",
    cdr=1.0,
    probability=0.5,
    probabilities={"NonDemented": 0.1, "VeryMildDemented": 0.3, "MildDemented": 0.5, "ModerateDemented": 0.1},
    code="",
    reason="",
    guard={"residual": 0.06},
    transforms=("rescale 1 x + -1024",),
    warnings=("the modality is CT; the model was trained on MR",),
    backend="onnx",
    precision="int8",
    model_digest="ab" * 32,
    timings=Timings(0.5, 0.25, 12.0),
)
OTHER = dataclasses.replace(
    OK, probabilities={"NonDemented": 0.2, "VeryMildDemented": 0.5, "MildDemented": 0.2, "ModerateDemented": 0.1}
)
REJECTED = dataclasses.replace(
    OK, status="rejected", label=None, cdr=None, probability=None, probabilities={}, code="blank", reason="it is black"
)


@pytest.mark.parametrize("result", [OK, REJECTED, study([OK, REJECTED, OTHER]), study([REJECTED])])
def test_round_trips_are_exact(result: Prediction | StudyPrediction) -> None:
    again = type(result).from_dict(json.loads(json.dumps(result.to_dict())))
    assert again == result
    assert again.to_dict() == result.to_dict()
    assert pickle.loads(pickle.dumps(result)) == result
    assert copy.deepcopy(result) == result


@pytest.mark.parametrize("result", [OK, study([OK])])
def test_results_cannot_be_changed(result: Prediction | StudyPrediction) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.label = "NonDemented"  # type: ignore[misc]
    with pytest.raises(TypeError):
        result.probabilities["NonDemented"] = 1.0  # type: ignore[index]


def test_a_prediction_does_not_follow_the_dictionary_it_was_made_of() -> None:
    probabilities = dict(OK.probabilities)
    made = dataclasses.replace(OK, probabilities=probabilities)
    probabilities["NonDemented"] = 1.0
    assert made == OK


def test_a_study_by_hand() -> None:
    result = study([OK, REJECTED, OTHER])
    assert result.probabilities == pytest.approx(
        {"NonDemented": 0.15, "VeryMildDemented": 0.4, "MildDemented": 0.35, "ModerateDemented": 0.1}
    )
    assert result.spread == pytest.approx(
        {"NonDemented": 0.05, "VeryMildDemented": 0.1, "MildDemented": 0.15, "ModerateDemented": 0.0}
    )
    assert (result.label, result.cdr, result.agreement) == ("VeryMildDemented", 0.5, 0.5)
    assert (result.used, result.rejected) == ((0, 2), (1,))
    assert result.slices == (OK, REJECTED, OTHER)


def test_a_study_abstains_by_its_mean() -> None:
    assert study([OK, OTHER], abstain_below=0.39).status == "ok"
    unsure = study([OK, OTHER], abstain_below=0.41)
    assert (unsure.status, unsure.label, unsure.cdr, unsure.probability) == ("abstained", None, None, None)
    assert "40.0%, below the threshold of 41.0%" in unsure.reason


RULE = StudyRule((0.5, -0.5, 0.25, -0.25), 2.0, 0.4)
NAMES = ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented")


def test_a_study_by_its_rule_is_surer_than_the_mean() -> None:
    result = study([OK, REJECTED, OTHER], 0.4, RULE, labels=NAMES, temperature=1.5)
    logs = [[1.5 * math.log(one.probabilities[name]) for name in NAMES] for one in (OK, OTHER)]
    logs = [[value - math.log(sum(map(math.exp, row))) for value in row] for row in logs]
    scores = [math.exp(b + 2 * (one + other) / 2) for b, one, other in zip(RULE.intercepts, *logs, strict=True)]
    expected = {name: score / sum(scores) for name, score in zip(NAMES, scores, strict=True)}
    assert result.probabilities == pytest.approx(expected)
    assert list(result.probabilities) == list(OK.probabilities)
    assert result.method == "calibrated"
    assert result.used == (0, 2)
    assert study([OK]).method == "mean"
    assert type(result).from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_one_absurd_slice_does_not_decide_a_study() -> None:
    absurd = dataclasses.replace(OK, probabilities=dict.fromkeys(OK.probabilities, 0.0) | {"MildDemented": 1.0})
    others = [dataclasses.replace(OK, probabilities=dict(zip(OK.probabilities, (0.94, 0.02, 0.02, 0.02), strict=True)))]
    found = study([absurd, *others * 20], 0.0, RULE, labels=NAMES)
    assert found.label == "NonDemented"


def test_a_study_of_0_1_without_its_method_is_read() -> None:
    old = {key: value for key, value in study([OK]).to_dict().items() if key != "method"}
    assert StudyPrediction.from_dict(old) == study([OK])
