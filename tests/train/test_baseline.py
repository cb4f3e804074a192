"""The linear baseline: it sees what a linear model can see in people it was not fitted on, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from stageproof.runtime.labels import FOUR_STAGES
from stageproof.train.audit.linear_baseline import linear_baseline


def people(count: int, signal: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thumbnails, labels and groups of `count` people with four slices each; a corner darkens with dementia."""
    rng = np.random.default_rng(seed)
    stage = np.arange(count) % 4 * (np.arange(count) % 2)  # half of them NonDemented
    faces = rng.normal(128, 25, (count, 16, 16))
    faces[:, :4, :4] -= signal * (stage > 0)[:, None, None]
    slices = np.repeat(faces, 4, axis=0) + rng.normal(0, 5, (4 * count, 16, 16))
    return np.clip(slices, 0, 255).astype(np.uint8), np.repeat(stage, 4), np.repeat(np.arange(count), 4)


def test_a_signal_is_found_and_labels_without_one_are_chance():
    seen = linear_baseline(*people(60, 60), FOUR_STAGES)
    assert seen["patients"] == 60
    assert seen["auc"]["value"] > 0.95
    assert seen["accuracy"]["low"] > seen["largest"] == 0.5
    none = linear_baseline(*people(60, 0), FOUR_STAGES)
    assert none["auc"]["low"] < 0.5 < none["auc"]["high"]
    assert linear_baseline(*people(60, 60), FOUR_STAGES) == seen


def test_what_is_remembered_of_a_person_helps_nothing():
    """Each person's slices are all alike, so a model that had seen one of them would know the rest."""
    found = [linear_baseline(*people(40, 0, seed), FOUR_STAGES)["auc"]["value"] for seed in range(6)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.12)


def test_copies_do_not_count():
    thumbnails, labels, groups = people(40, 60)
    upside_down = thumbnails[:, ::-1]
    both = (
        np.concatenate([one, other])
        for one, other in zip((thumbnails, labels, groups), (upside_down, labels, groups), strict=True)
    )
    copied = np.repeat([False, True], len(labels))
    assert linear_baseline(*both, FOUR_STAGES, left_out=copied) == linear_baseline(
        thumbnails, labels, groups, FOUR_STAGES
    )


def test_too_few_people_on_a_side_give_no_figure():
    thumbnails, labels, groups = people(8, 60)
    assert linear_baseline(thumbnails, labels, groups, FOUR_STAGES) is None
