"""The suite's own honesty: on a clock that only the contenders move."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from stageproof.benchmarks.training import interleaved_timing as module
from stageproof.benchmarks.training.interleaved_timing import Measured, time_interleaved


@pytest.fixture
def clock(monkeypatch):
    """A clock in seconds that stands still until a contender adds to it."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    return now


def spending(clock, milliseconds):
    def contender(image):
        clock[0] += milliseconds / 1e3

    return contender


def test_each_contender_is_charged_its_own_time_and_no_other(clock):
    contenders = {"slow": spending(clock, 6.0), "quick": spending(clock, 2.0)}
    slow, quick = time_interleaved(contenders, lambda turn: turn, rounds=20, warm_up=5)
    assert slow.median == pytest.approx(6)
    assert quick.median == pytest.approx(2)
    assert quick.ratio(slow) == pytest.approx((3, 3, 3))


def test_every_round_gives_all_contenders_one_task_in_rotating_order():
    calls = []
    contenders = {name: (lambda image, name=name: calls.append((name, image))) for name in "abc"}
    time_interleaved(contenders, lambda turn: turn, rounds=6, warm_up=3)
    rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert len(rounds) == 9
    assert all(len({image for _, image in turn}) == 1 and {name for name, _ in turn} == set("abc") for turn in rounds)
    assert Counter(turn[0][0] for turn in rounds) == {"a": 3, "b": 3, "c": 3}


def test_warm_up_is_not_counted(clock):
    first = [100.0, 100.0]

    def contender(image):
        clock[0] += (first.pop() if first else 1.0) / 1e3

    measured = time_interleaved({"warming": contender}, lambda turn: turn, rounds=10, warm_up=2)
    assert measured[0].milliseconds == pytest.approx(1)


def test_the_interval_covers_the_true_median_about_19_times_in_20():
    draw = np.random.default_rng(5)
    truth, covered = np.exp(0.5), 0
    for _ in range(200):
        low, high = Measured("x", draw.lognormal(0.5, 0.4, 60)).interval()
        covered += low <= truth <= high
    assert covered >= 183


def test_equal_contenders_have_a_ratio_interval_around_one():
    draw = np.random.default_rng(6)
    first, second = (Measured(name, draw.lognormal(2, 0.2, 200)) for name in "ab")
    _, low, high = first.ratio(second)
    assert low < 1 < high


def test_intervals_of_times_are_above_zero():
    """Two of ten took a hundred times as long: an interval on the times themselves would begin below zero."""
    low, high = Measured("x", np.array([1.0, 1.1, 100.0, 0.9, 1.0, 90.0, 1.2, 0.8, 1.0, 1.1])).interval()
    assert 0 < low < 1.05 < high
