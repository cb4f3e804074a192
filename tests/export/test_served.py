"""What the gate sees beside predictions: abstentions, rejected images, and studies, by the runtime's own rules."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from stageproof.export.data.calibration import calibration_samples
from stageproof.export.data.overlap import pixel_digests, two_halves, without
from stageproof.export.parity.report import Tolerance, compare
from stageproof.export.parity.served import serve
from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.sources.source import load_samples
from tests.export.test_preconditions import write_images

MODEL = ModelInfo("fake", "0" * 64, LABELS, FOUR_STAGES, InputSpec(8, 8, 1, (0.0,), (1.0,)), abstain_below=0.8)
PEOPLE = np.repeat(np.arange(160), 4)


@pytest.fixture
def logits() -> np.ndarray:
    """(640, 4) float32: firm, of 160 people of one class each."""
    return (np.eye(4)[PEOPLE % 4] * 6).astype(np.float32)


TWO_PER_CENT = Tolerance(1.0, 0.02)


def judged(reference, artifact, tolerance=TWO_PER_CENT, people=PEOPLE, rejected=None, **more):
    served = partial(serve, MODEL, people=people, rejected=rejected)
    about = {"tolerance": tolerance, "people": people, "serve": served, "unit": "patients", **more}
    return compare(reference, artifact, LABELS, **about)


def test_an_abstention_is_a_changed_answer_though_no_prediction_changes(logits):
    unsure = logits.copy()
    unsure[::16] *= 0.2
    parity = judged(logits, unsure)
    assert (parity.flipped, parity.changed) == (0, 40)
    assert not parity.holds
    assert parity.statuses["reference"] == {"ok": 640}
    assert parity.statuses["changes"]["ok NonDemented → abstained"] > 0
    assert "and 40 answers, abstentions included" in str(parity)
    assert compare(logits, unsure, LABELS, tolerance=TWO_PER_CENT).holds, "as it was: blind to it"


def test_fp32_may_change_no_status_and_no_study(logits):
    unsure = logits.copy()
    unsure[0] *= 0.2
    parity = judged(logits, unsure, Tolerance(1.0, 0.0))
    assert (parity.flipped, parity.changed, parity.holds) == (0, 1, False)


def test_what_the_guard_rejects_changes_no_answer_and_counts_as_a_prediction(logits):
    other = logits.copy()
    other[:2] = np.roll(other[:2], 1, axis=1)
    out = np.arange(640) < 4
    parity = judged(logits, other, rejected=out)
    assert parity.statuses["reference"] == {"rejected": 4, "ok": 636}
    assert (parity.flipped, parity.changed) == (2, 2)
    assert parity.studies["changed"] == 0
    assert parity.studies["reference"] == {"rejected": 1, "ok": 159}


def test_studies_are_those_of_the_runtime_and_fail_an_artifact_that_changes_too_many(logits):
    """Twenty of 160 studies change, of which each needs three of four slices."""
    other = logits.copy()
    where = (PEOPLE < 20) & (np.arange(640) % 4 < 3)
    other[where] = np.roll(other[where], 1, axis=1)
    parity = judged(logits, other, Tolerance(1.0, 0.05))
    assert parity.studies["studies"] == 160
    assert parity.studies["changed"] == 20
    assert parity.studies["lower_bound"] > 0.05
    assert parity.too_many_studies
    assert not judged(logits, other, Tolerance(1.0, 0.3)).too_many_studies
    assert judged(logits, other, people=None, unit="unknown").studies is None


def test_the_report_has_people_design_effect_and_classes(logits):
    other = logits.copy()
    other[:3] = np.roll(other[:3], 1, axis=1)
    parity = judged(logits, other, Tolerance(1.0, 0.05), artifacts=4)
    assert (parity.people, parity.unit, parity.artifacts) == (160, "patients", 4)
    assert parity.confidence == pytest.approx(0.9875)
    assert parity.design_effect > 2
    one = judged(logits, other, Tolerance(1.0, 0.05))
    assert parity.flip_bound > one.flip_bound
    assert set(parity.flip_bound_by_class) == set(LABELS)
    assert parity.flip_bound_by_class[LABELS[0]] > parity.flip_bound_by_class[LABELS[1]] > 0
    few = judged(logits[:32], logits[:32], people=PEOPLE[:32])
    assert set(few.flip_bound_by_class.values()) == {None}


def test_nothing_is_calibrated_on_an_image_that_is_compared_on(tmp_path, said):
    data = load_samples(write_images(tmp_path / "data", 250))
    compared = pixel_digests(data.select(np.arange(0, 250, 10)))
    chosen = calibration_samples(None, tmp_path / "data", compared=compared)
    assert not {*pixel_digests(chosen[0]), *pixel_digests(chosen[1])} & set(compared)
    assert sum(map(len, chosen)) == 225
    assert said[0].startswith("25 of 250 calibration images")
    with pytest.raises(DatasetError, match=r"250 of 250 calibration images .* are identical to comparison images"):
        calibration_samples(None, tmp_path / "data", compared=pixel_digests(data))
    assert without(data, ()) is data


def test_halves_have_no_person_in_common_and_all_classes():
    people, labels = np.repeat(np.arange(24), 5), np.repeat(np.arange(4), 30)
    half = two_halves(people, labels)
    assert not set(people[half]) & set(people[~half])
    assert set(labels[half]) == set(labels[~half]) == {0, 1, 2, 3}
    assert two_halves(people[:15], labels[:15]) is None
