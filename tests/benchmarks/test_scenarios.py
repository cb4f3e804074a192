"""Whose turn it is, on which image, and what is counted: with workers that say what they were asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from stageproof.benchmarks.contenders.poisson_arrivals import serve
from stageproof.benchmarks.inference.scenarios import BURST, Timings, agree, best_batches, offline, single_stream


@dataclass
class FakeWorker:
    """A worker that answers each question with the next of its own times, and keeps what it was asked."""

    name: str
    milliseconds: list[float]
    batches: tuple[int, ...] = (1, 8)
    kind: str = "peer"
    calls: list = field(default_factory=list)

    @property
    def contender(self):
        return SimpleNamespace(name=self.name, batches=self.batches, kind=self.kind)

    def wait_until_idle(self):
        pass

    def request(self, method, *arguments):
        self.calls.append((method, arguments))
        time = self.milliseconds[min(len(self.calls), len(self.milliseconds)) - 1]
        if method == "burst":
            return [time] * arguments[1], [{"compute": time}] * arguments[1]
        return time


def test_every_round_gives_all_workers_the_same_images_in_an_order_of_its_own():
    order = []
    workers = [FakeWorker(name, [1.0]) for name in "abc"]
    for worker in workers:
        worker.calls = type("Log", (list,), {"append": lambda self, call, n=worker.name: order.append((n, call))})([0])
    single_stream(workers, 100 * BURST)
    rounds = [order[start : start + 3] for start in range(0, len(order), 3)]
    assert all({name for name, _ in turn} == set("abc") for turn in rounds)
    assert all(len({call for _, call in turn}) == 1 for turn in rounds)
    counted = rounds[-100:]
    assert [turn[0][1][1][0] for turn in counted] == list(range(0, 100 * BURST, BURST))
    seen = Counter("".join(name for name, _ in turn) for turn in counted)
    assert len(seen) == 6, "every order"
    assert max(seen.values()) < 2 * min(seen.values()), "about as often as any other"


def test_warming_up_goes_on_until_it_is_warm_and_is_not_counted():
    cold = FakeWorker("cold", [90, 50, 20, 10, 10, 10])
    timings = single_stream([cold], 4 * BURST)["cold"]
    assert timings.milliseconds == [10] * 4 * BURST
    assert timings.stages == {"compute": [10] * 4 * BURST}
    assert timings.stable


def test_a_contender_that_drifts_is_asked_twice_as_long_and_said_to_have_drifted():
    drifting = FakeWorker("drifting", list(np.linspace(10, 30, 24)))
    timings = single_stream([drifting], 4 * BURST)["drifting"]
    assert len(timings.milliseconds) == 8 * BURST
    assert not timings.stable


@pytest.mark.parametrize(
    ("medians", "expected"), [([10, 10.4, 10.9], True), ([10, 10.4, 11.5], False), ([10], False), ([], False)]
)
def test_medians_agree_within_a_tenth(medians, expected):
    assert agree(medians) is expected


def test_one_wild_sample_makes_no_thirds_differ():
    assert Timings([10.0] * 20 + [500.0] + [10.0] * 20).stable


def test_each_contender_gets_the_batch_size_that_is_best_for_it():
    small, large = FakeWorker("small", [1.0, 2.0, 3.0, 2.0]), FakeWorker("large", [2.0, 9.0, 2.0, 1.0])
    workers = [small, large, FakeWorker("single", [5.0], batches=(1,))]
    batches = best_batches(workers, 16)
    assert batches == {"small": 1, "large": 8, "single": 1}


def test_offline_counts_an_image():
    timings, engines = offline([FakeWorker("a", [0.032])], {"a": 8}, 16, 3)
    assert timings["a"].milliseconds == pytest.approx([2.0] * 3)
    assert engines == {}


def test_offline_times_a_predictors_engine_in_the_same_turns_and_as_often_first_as_second():
    ours, peer = FakeWorker("ours", [0.032], kind="predictor"), FakeWorker("peer", [0.064])
    timings, engines = offline([ours, peer], {"ours": 8, "peer": 4}, 16, 4)
    assert {name: len(one.milliseconds) for name, one in timings.items()} == {"ours": 4, "peer": 4}
    assert {name: len(one.milliseconds) for name, one in engines.items()} == {"ours": 4}
    engine, stream = ("call", ("engine_stream", 16, 8)), ("throughput", (16, 8))
    assert ours.calls == [engine, stream, stream, engine] * 2
    assert peer.calls == [("throughput", (16, 4))] * 4


@pytest.fixture
def clock(monkeypatch):
    """A clock in seconds that stands still until somebody sleeps or answers."""
    from stageproof.benchmarks.contenders import poisson_arrivals as server

    now = [0.0]

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(server, "time", SimpleNamespace(perf_counter=lambda: now[0], sleep=sleep))
    return now


def answering(clock, seconds):
    def answer(requests):
        clock[0] += seconds
        return [True] * len(requests)

    return answer


def test_waiting_for_ones_turn_counts_as_queueing_theory_says(clock):
    service, load = 0.010, 0.7
    served = serve(answering(clock, service), load / service, 600, batch=1)
    # M/D/1: the mean wait is load / (2 (1 - load)) services (Pollaczek 1930, Khinchine 1932).
    mean = service * (1 + load / (2 * (1 - load)))
    assert np.mean(served["latencies_ms"]) / 1e3 == pytest.approx(mean, rel=0.05)
    assert len(served["latencies_ms"]) == pytest.approx(600 * load / service, rel=0.05)
    assert served["lost"] == 0


def test_nobody_waits_when_hardly_anybody_comes(clock):
    served = serve(answering(clock, 0.010), 0.5, 600, batch=8)
    assert np.median(served["latencies_ms"]) == pytest.approx(10)


def test_overload_shows_as_latency_and_not_as_fewer_requests(clock):
    served = serve(answering(clock, 0.010), 200, 10, batch=1)
    assert len(served["latencies_ms"]) == pytest.approx(2000, rel=0.1)
    assert served["latencies_ms"][-1] > 5_000


def test_those_who_wait_share_a_batch(clock):
    sizes = []

    def answer(requests):
        sizes.append(len(requests))
        clock[0] += 0.010
        return [True] * len(requests)

    served = serve(answer, 400, 10, batch=8)
    assert max(sizes) == 8
    assert sum(sizes) == len(served["latencies_ms"])
    assert max(served["latencies_ms"]) < 100


def test_a_request_without_an_answer_is_lost(clock):
    served = serve(lambda requests: [position % 10 != 0 for position in requests], 100, 10, batch=1)
    assert served["lost"] == pytest.approx(100, rel=0.2)
