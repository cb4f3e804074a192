"""The control: shuffled labels fall to chance, and memory of people is found where there is some."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from train.data.loader import Slices
from train.evaluation.control import memory_test, permutation_test
from train.evaluation.heldout import HeldOut
from train.evaluation.scores import Answers


def remembering(shared: bool) -> HeldOut:
    """12 + 12 people whose slices are alike within a person; `shared`: the same people on both sides."""
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (24, 32, 32))
    held, trained = np.repeat(np.arange(12), 6), np.repeat(np.arange(12) + (0 if shared else 12), 6)

    def slices(who: np.ndarray) -> Slices:
        pictures = np.clip(faces[who] + rng.integers(-9, 10, (len(who), 32, 32)), 0, 255).astype(np.uint8)
        return Slices(pictures[:, None], pictures, who % 4, tuple(map(str, range(len(who)))), who)

    return HeldOut(slices(held), held, "source", "", "", True, float(shared), 0, 0, slices(trained), trained, ())


def test_the_control_finds_memory_and_only_memory():
    apart, together = memory_test(remembering(False)), memory_test(remembering(True))
    assert apart["holds"] is True
    assert apart["memory"] == pytest.approx(0, abs=0.02)
    assert apart["accuracy"] == pytest.approx(apart["chance"], abs=0.02)
    assert together["holds"] is False
    assert together["memory"] == together["accuracy"] == 1
    assert memory_test(replace(remembering(True), training=None)) is None


def test_shuffled_labels_fall_to_chance_and_true_ones_stand_out():
    patients = np.repeat(np.arange(40), 8)
    labels = patients % 4
    rng = np.random.default_rng(0)
    said = np.where(rng.random(320) < 0.7, labels, rng.integers(0, 4, 320))
    good, scores = permutation_test(Answers(np.eye(4)[said] * 0.6 + 0.1, labels, patients))
    assert good["chance"] == 0.25
    assert good["shuffled_mean"] == pytest.approx(0.25, abs=0.01)
    assert good["p"] == pytest.approx(1 / 1001)
    assert scores.shape == (1000,)
    guess = np.repeat(rng.integers(0, 4, 40), 8)
    none, _ = permutation_test(Answers(np.eye(4)[guess] * 0.6 + 0.1, labels, patients))
    assert none["p"] > 0.05
