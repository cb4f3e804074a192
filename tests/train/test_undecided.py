"""Slices that may be of several groups are set aside, and no part of a split has them."""

from __future__ import annotations

import csv
from itertools import combinations

import numpy as np
import pytest

from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.audit.dataset import audit
from stageproof.train.audit.text import lines
from stageproof.train.data.dataset import prepare
from stageproof.train.data.identity.groups_file import read_ids, write_groups
from stageproof.train.data.identity.identify import identify
from stageproof.train.data.patients.tearing import _without_small, resolve_doubts
from stageproof.train.data.samples import Samples
from stageproof.train.data.splits import split_without
from stageproof.train.evaluate.flow import parts_of
from stageproof.train.runs.split_file import read_split

OPTIONS = {"max_unreadable": 0.0, "split": "patient", "folds": 5, "seed": 0}


@pytest.mark.parametrize("seed", range(40))
def test_no_two_groups_that_may_be_one_person_are_left_apart(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 40))
    size = rng.choice([1, 2, 5, 6, 30], count)
    doubts = rng.integers(0, count, (int(rng.integers(0, 2 * count)), 2))
    number, aside = resolve_doubts(size, doubts)
    assert not aside[size >= 6].any(), "large groups are joined"
    kept = doubts[~aside[doubts].any(axis=1)]
    assert (number[kept[:, 0]] == number[kept[:, 1]]).all()


def test_what_is_set_aside_joins_nobody():
    size = np.array([30, 30, 30, 1, 2, 1])
    # The first small group may be part of two heads, the second of one, the third of nobody.
    number, aside = resolve_doubts(size, np.array([(3, 0), (3, 1), (4, 2)]))
    assert aside.tolist() == [False, False, False, True, False, False]
    assert len(set(number[[0, 1, 2, 5]].tolist())) == 4
    assert number[4] == number[2]


def test_a_small_group_between_joined_heads_is_joined():
    number, aside = resolve_doubts(np.array([30, 30, 1]), np.array([(0, 1), (2, 0), (2, 1)]))
    assert not aside.any()
    assert len(set(number.tolist())) == 1


def test_of_two_small_groups_of_two_heads_one_is_set_aside():
    """They may be one person, and so may each be with a head of its own."""
    number, aside = resolve_doubts(np.array([30, 30, 2, 1]), np.array([(2, 0), (3, 1), (2, 3)]))
    assert aside.tolist() == [False, False, False, True]
    assert number[0] != number[1]
    assert number[2] == number[0]


def test_small_parts_that_a_score_joined_stand_alone_and_are_tied_to_all_of_their_group():
    joined = np.repeat([0, 1, 2, 3], [8, 2, 1, 7])  # a head, two small parts that were joined to it, another head
    nodes, links = _without_small(joined, np.repeat([0, 0, 0, 1], [8, 2, 1, 7]))
    assert [len(np.unique(nodes[joined == one])) for one in range(4)] == [1, 1, 1, 1]
    head, two, one, other = (int(nodes[joined == part][0]) for part in range(4))
    assert len({head, two, one, other}) == 4
    assert {frozenset(pair) for pair in links.tolist()} == {
        frozenset(pair) for pair in combinations((head, two, one), 2)
    }


def test_large_parts_that_a_score_joined_stay_together():
    nodes, links = _without_small(np.repeat([0, 1, 2], 6), np.repeat([0, 0, 1], 6))
    assert nodes.tolist() == np.repeat([0, 0, 1], 6).tolist()
    assert len(links) == 0


def test_a_split_has_all_others_and_holds_each_out_once():
    labels, groups = np.repeat([0, 1], 60), np.repeat(np.arange(20), 6)
    undecided = np.zeros(120, bool)
    undecided[[3, 50, 119]] = True
    held = []
    for fold in range(5):
        dealt = split_without(labels, groups, undecided, folds=5, fold=fold)
        held.append(dealt.validation)
        assert dealt.left_out.tolist() == [3, 50, 119]
        assert not set(groups[dealt.training]) & set(groups[dealt.validation])
        assert sorted([*dealt.training, *dealt.validation, *dealt.left_out]) == list(range(120))
    assert sorted(np.concatenate(held)) == np.flatnonzero(~undecided).tolist()


@pytest.fixture
def told(few_slices, tmp_path):
    """A groups file in which two slices are undecided, and their names."""
    names = sorted(path.relative_to(few_slices).as_posix() for path in few_slices.rglob("*.png"))
    undecided = np.isin(np.arange(40), [4, 25])
    groups = np.where(undecided, 20 + np.arange(40), np.arange(40) // 2)
    write_groups(tmp_path / "groups.csv", names, groups, "groups", undecided)
    return tmp_path / "groups.csv", [names[4], names[25]]


def test_a_groups_file_keeps_what_is_undecided(told, few_slices):
    path, names = told
    every = sorted(path.relative_to(few_slices).as_posix() for path in few_slices.rglob("*.png"))
    ids = read_ids(Samples([b""] * 40, np.repeat(np.arange(4), 10), every, None, "slices", classes=FOUR_STAGES), path)
    assert ids.verdict == "groups"
    assert [every[at] for at in np.flatnonzero(ids.undecided)] == names
    assert ids.select(np.array([4, 5])).undecided.tolist() == [True, False]


def test_training_leaves_them_out_and_says_so(told, few_slices, tmp_path):
    path, names = told
    data = prepare(few_slices, InputSpec.imagenet(32), groups=path, fold=0, **OPTIONS)
    assert [data.slices.names[at] for at in data.split.left_out] == names
    assert data.facts()["undecided"] == 2
    assert "2 slices left out: they may belong to several groups" in data.who.lines()
    data.write(tmp_path)
    sides = read_split(tmp_path)
    assert {name for name, (_, side) in sides.items() if side == "left out"} == set(names)
    (left,) = [part for part in parts_of(sides, []) if part["part"] == "left out"]
    assert (left["slices"], left["people"]) == (2, None)
    with (tmp_path / "split.csv").open() as file:
        assert all(row["group"] and row["label"] in LABELS for row in csv.DictReader(file))


def test_the_audit_says_so_and_its_groups_file_too(told, few_slices, tmp_path):
    path, names = told
    findings = audit(few_slices, tmp_path / "audit", groups=path)
    assert findings["undecided"] == 2
    text = " ".join(" ".join(lines(findings)).split())
    assert "2 slices may belong to several groups and are left out of splits" in text
    with (tmp_path / "audit" / "groups.csv").open() as file:
        assert {row["file"] for row in csv.DictReader(file) if row["verdict"] == "undecided"} == set(names)


def test_without_any_nothing_is_left_out():
    who = identify(np.zeros((4, 64, 64), np.uint8), np.array([0, 0, 1, 1]), None)
    assert not who.undecided.any()
    assert who.facts()["undecided"] == 0
