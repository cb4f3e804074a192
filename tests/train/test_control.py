"""The control: shuffled labels fall to chance, and memory of people is found where there is some."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stageproof.runtime.labels import FOUR_STAGES
from stageproof.train.data.decode import Slices
from stageproof.train.data.splits import shuffled_labels, split_slices
from stageproof.train.evaluate.negative_controls import control_fails, identity_test, permutation_test
from stageproof.train.metrics.classification import Answers
from stageproof.train.reports.formatting import power_sentence
from stageproof.train.test_set.held_out import HeldOut


def memoriser(people: int, by: str, seed: int) -> dict:
    """The control of a nearest neighbour by features of people without any signal, through the split of a run."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(people), 5)
    features = rng.normal(size=(people, 8))[groups] + 0.1 * rng.normal(size=(len(groups), 8))
    labels = shuffled_labels(rng.permutation(np.arange(people) % 4)[groups], groups, seed)
    dealt = split_slices(labels, groups, by=by, folds=5, fold=0, seed=seed)
    test, known = features[dealt.validation], features[dealt.training]
    distance = (known**2).sum(1) - 2 * test @ known.T
    answers = np.eye(4)[labels[dealt.training][distance.argmin(1)]]
    tested = np.unique(groups[dealt.validation], return_inverse=True)[1]
    return permutation_test(Answers(answers, labels[dealt.validation], tested, FOUR_STAGES), seed)[0]


def remembering(shared: bool) -> HeldOut:
    """12 + 12 people whose slices are alike within a person; `shared`: the same people on both sides."""
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (24, 32, 32))
    held, trained = np.repeat(np.arange(12), 9), np.repeat(np.arange(12) + (0 if shared else 12), 9)

    def slices(who: np.ndarray) -> Slices:
        pictures = np.clip(faces[who] + rng.integers(-9, 10, (len(who), 32, 32)), 0, 255).astype(np.uint8)
        return Slices(pictures[:, None], pictures, who % 4, tuple(map(str, range(len(who)))), who)

    return HeldOut(slices(held), held, "source", "", "", True, float(shared), 0, 0, slices(trained), trained, ())


def test_people_on_both_sides_are_seen_by_the_images_whatever_the_ids_say():
    apart, together = identity_test(remembering(False)), identity_test(remembering(True))
    assert apart["holds"] is True
    assert apart["shown"] == 0
    assert apart["complete"] is True
    assert together["holds"] is False
    torn = remembering(True)
    torn = replace(torn, training_patients=torn.training_patients + 100, leaked=0.0)  # ids that tear everybody in two
    assert identity_test(torn) == together
    assert identity_test(replace(remembering(True), training=None)) is None


def test_few_patients_give_the_control_no_power_and_it_says_so():
    found = {}
    for count in (16, 160):
        patients = np.repeat(np.arange(count), 4)
        guess = np.repeat(np.random.default_rng(1).integers(0, 4, count), 4)
        found[count] = permutation_test(Answers(np.eye(4)[guess], patients % 4, patients, FOUR_STAGES))[0]
    assert found[16]["has_power"] is False
    assert found[16]["patients_needed"] > 30
    assert power_sentence(found[16], 16).startswith("NO POWER: with 16 patients tested, leakage of 20% of them")
    assert found[160]["has_power"] is True
    assert found[160]["power"] >= 0.8
    assert "NO POWER" not in power_sentence(found[160], 160)


def test_a_memoriser_with_leaked_people_fails_the_control_and_one_without_passes():
    """With labels permuted in training alone, as before, the memoriser with all people leaked was at chance."""
    assert control_fails(memoriser(40, "slice", 1))
    assert not any(control_fails(memoriser(40, "patient", seed)) for seed in range(3))


def test_shuffled_labels_fall_to_chance_and_true_ones_stand_out():
    patients = np.repeat(np.arange(40), 8)
    labels = patients % 4
    rng = np.random.default_rng(0)
    said = np.where(rng.random(320) < 0.7, labels, rng.integers(0, 4, 320))
    good, scores = permutation_test(Answers(np.eye(4)[said] * 0.6 + 0.1, labels, patients, FOUR_STAGES))
    assert good["chance"] == 0.25
    assert good["shuffled_mean"] == pytest.approx(0.25, abs=0.01)
    assert good["p"] == pytest.approx(1 / 1001)
    assert scores.shape == (1000,)
    guess = np.repeat(rng.integers(0, 4, 40), 8)
    none, _ = permutation_test(Answers(np.eye(4)[guess] * 0.6 + 0.1, labels, patients, FOUR_STAGES))
    assert none["p"] > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("by", "least", "most"), [("slice", 0.95, 1.0), ("patient", 0.0, 0.05)])
def test_of_a_thousand_controls_those_with_leakage_fail_and_the_others_do_not(by, least, most):
    failed = np.mean([control_fails(memoriser(160, by, seed)) for seed in range(1000)])
    assert least <= failed <= most


@pytest.mark.slow
def test_sixteen_people_never_give_the_control_power():
    told = [memoriser(16, "patient", seed)["has_power"] for seed in range(1000)]
    assert np.mean(told) <= 0.01
