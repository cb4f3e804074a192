"""Verdicts on two runs: nothing is said of the same code, and a real change is found."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
import pytest

from stageproof.benchmarks.compare.statistics import (
    LEAST_SAMPLES,
    Estimate,
    autocorrelation_time,
    combined,
    detectable,
    holm,
    interval,
    level,
    p_value_of_change,
    p_value_of_slowdown,
)
from stageproof.benchmarks.compare.verdicts import compare, fails
from stageproof.benchmarks.options import Options
from stageproof.benchmarks.reports.comparison_text import lines
from stageproof.runtime import InputError


def judgements(before, after) -> list[str]:
    return [verdict.judgement for verdict in compare(before, after).verdicts]


UNCHANGED = {"cannot tell", "no slower"}


def drawn(make, seed: int, pairs: int, rounds: int, slower: float, **about) -> list[list[str]]:
    """The verdicts on so many pairs of simulated runs, the second with one row slower."""
    random = np.random.default_rng(seed)
    return [
        judgements(make.simulated(random, rounds, **about), make.simulated(random, rounds, slower=slower, **about))
        for _ in range(pairs)
    ]


@pytest.mark.parametrize("processes", [1, 5])
def test_two_runs_of_the_same_code_on_a_drifting_machine_are_not_called_faster_or_slower(make, processes):
    said = drawn(make, 1, 30, 200, slower=1.0, processes=processes, spread=0.02)
    assert sum(not UNCHANGED.issuperset(one) for one in said) <= 2


def test_five_per_cent_are_found_over_ten_processes_and_only_in_the_row_that_is_slower(make):
    said = drawn(make, 2, 8, 1600, slower=1.05, processes=10)
    assert sum(judged[3] == "slower" for judged in said) >= 7
    assert sum(judged[at] not in UNCHANGED for judged in said for at in (0, 1, 2, 4)) <= 1


def test_five_per_cent_faster_are_found_too(make):
    said = drawn(make, 3, 6, 1600, slower=0.95, processes=10)
    assert sum(judged[3] == "faster" for judged in said) >= 5


def test_one_process_each_does_not_show_five_per_cent(make):
    """Processes of the same code may differ by that much, and one process says nothing of it."""
    said = drawn(make, 15, 8, 1600, slower=1.05)
    assert sum(judged[3] in ("slower", "no slower", "faster") for judged in said) <= 1


def test_no_slower_is_shown_by_enough_processes_and_not_for_code_that_is_as_much_slower(make):
    assert sum(judged[3] == "no slower" for judged in drawn(make, 16, 10, 1000, slower=1.0, processes=10)) >= 8
    wrong = drawn(make, 17, 20, 1000, slower=1.05, processes=10)
    assert sum(judged[3] in ("no slower", "faster") for judged in wrong) <= 3


def test_what_a_check_in_ci_fails_on(make):
    random = np.random.default_rng(18)
    rows = [make.simulated(random, 1000, processes=10, slower=slower) for slower in (1.0, 1.0, 1.1)]
    same, slower = (compare(rows[0], other) for other in rows[1:])
    few = compare(make.simulated(random, 40), make.simulated(random, 40))
    assert [fails(one, unproven=False) for one in (same, slower, few)] == [False, True, False]
    assert [fails(one, unproven=True) for one in (same, slower, few)] == [False, True, True]


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("memory", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("spread", [0.0, 0.02])
@pytest.mark.parametrize("processes", [1, 5, 10])
def test_false_verdicts_stay_below_one_in_twenty(make, processes, spread, memory):
    """1,000 pairs each, 100 rounds: any row called faster or slower, and a row 5 % slower called no slower.

    Asserted with what 1,000 pairs show of a rate of 5 % by chance (99 %).
    """
    about = {"processes": processes, "spread": spread, "memory": memory}
    wrong = sum(not UNCHANGED.issuperset(said) for said in drawn(make, 4, 1000, 100, slower=1.0, **about))
    missed = sum(said[3] in ("no slower", "faster") for said in drawn(make, 5, 1000, 100, slower=1.05, **about))
    assert wrong <= 68
    assert missed <= 68


def test_real_timings_of_the_same_code_cannot_be_told_apart_and_of_slower_code_can(make, monkeypatch):
    """By the processor's time of this thread, in which others have little part. The slower one does 1.4 times the work,
    so that half a second shows it."""
    monkeypatch.setattr(time, "perf_counter", time.thread_time)
    amounts = {f"peer {at}": 20_000 + 5_000 * at for at in range(3)} | {"ours": 30_000}
    first, again, slower = (
        make.record(make.timed({**amounts, "ours": ours}, rounds=250)) for ours in (30_000, 30_000, 42_000)
    )
    assert UNCHANGED.issuperset(judgements(first, again))
    said = {verdict.row.name: verdict for verdict in compare(first, slower).verdicts}
    assert said["ours"].judgement == "slower"
    assert {said[name].judgement for name in said if name != "ours"} <= UNCHANGED
    assert 1.2 < 1 + said["ours"].change < 1.6


def test_drift_of_the_machine_is_taken_out_by_the_peers(make):
    random = np.random.default_rng(5)
    first, second = (make.simulated(random, 400) for _ in range(2))
    halved = [make.row(row.name, 2 * np.array(row.samples_ms), row.kind) for row in second.rows]
    assert UNCHANGED.issuperset(judgements(first, make.record(halved)))


@pytest.mark.parametrize("scenario", ["engine", "server"])
def test_rows_that_no_peer_shares_are_held_against_the_peers_of_single_stream(make, scenario):
    random = np.random.default_rng(14)

    def run(machine, slower):
        times = machine * random.lognormal(2, 0.03, (3, 400))
        alone = make.row("alone", slower * times[2], scenario=scenario)
        return make.record([make.row("first", times[0], "peer"), make.row("second", times[1], "peer"), alone])

    assert judgements(run(1, 1), run(2, 1))[-1] in UNCHANGED
    assert judgements(run(1, 1), run(2, 1.15))[-1] == "slower"


def test_without_a_peer_it_is_said_and_only_large_changes_are_told(make):
    random = np.random.default_rng(6)
    times = random.lognormal(2, 0.02, 400)
    first = make.record([make.row("ours", times)])
    found = compare(first, make.record([make.row("ours", 1.08 * times)], "b.json"))
    assert [one.judgement for one in found.verdicts] == ["cannot tell"]
    assert any("No peer was measured in both runs" in note for note in found.notes)
    assert "In at most 5%" not in " ".join(lines(found))
    assert judgements(first, make.record([make.row("ours", 1.2 * times)])) == ["slower"]


def test_without_a_peer_nothing_is_called_no_slower(make):
    """The machine's own drift of 5 % from run to run would hide a row that is 5 % slower in 7 of 100 pairs."""
    for said in drawn(make, 20, 20, 1000, slower=1.0, peers=0, processes=10):
        assert set(said) <= {"cannot tell", "slower", "faster"}


def test_a_peer_whose_library_changed_is_no_control(make, machine):
    random = np.random.default_rng(7)
    rows = [
        make.row("eager", random.lognormal(3, 0.02, 200), "peer", backend="torch"),
        make.row("ours", random.lognormal(2, 0.02, 200)),
    ]
    updated = {**machine, "versions": {**machine["versions"], "torch": "3"}}
    notes = compare(make.record(rows), make.record(rows, machine=updated)).notes
    assert "torch: 2 before, 3 after" in notes
    assert any("No peer" in note for note in notes)
    assert any(
        "Corrected for drift of the machine with unchanged peers: eager." in note
        for note in compare(make.record(rows), make.record(rows)).notes
    )


def test_peers_that_moved_apart_make_the_verdict_careful(make):
    """What is_unchanged_peer code did by itself between the runs, a row must exceed."""
    random = np.random.default_rng(8)

    def rows(moved):
        names = [*(f"peer {at}" for at in range(6)), "ours"]
        return [
            make.row(name, random.lognormal(2, 0.02, 400) * factor, "peer" if "peer" in name else "predictor")
            for name, factor in zip(names, moved, strict=True)
        ]

    calm, uneven = [1.0] * 6, [0.94, 1.07, 0.97, 1.05, 0.92, 1.04]
    assert judgements(make.record(rows([1] * 7)), make.record(rows([*calm, 1.06])))[-1] == "slower"
    assert judgements(make.record(rows([1] * 7)), make.record(rows([*uneven, 1.06])))[-1] == "cannot tell"


def test_too_few_samples_are_said(make):
    rows = [make.row("ours", [10.0] * (LEAST_SAMPLES - 1))]
    found = compare(make.record(rows), make.record(rows))
    assert (found.verdicts[0].judgement, found.verdicts[0].why) == ("cannot tell", "29 samples, 30 needed")


@pytest.mark.parametrize("processes", [1, 2, 5, 10])
def test_a_run_by_default_has_as_many_offline_samples_as_a_comparison_needs(processes):
    assert Options(processes=processes).offline_turns * processes >= LEAST_SAMPLES


def test_servers_at_other_rates_are_not_compared(make):
    times = np.random.default_rng(9).lognormal(2, 0.1, 900)
    about = {"latency_bound_ms": 90.0, "lost": 0, "seconds": 20.0}
    rows = [
        [make.row("ours", times, scenario="server", batch=8, server={**about, "offered_per_s": rate})]
        for rate in (40.0, 44.0)
    ]
    found = compare(*map(make.record, rows))
    assert found.verdicts[0].why == "offered 40.0/s and 44.0/s"


@pytest.mark.parametrize("different", [{"cpu": "another CPU"}, {"cpus": 8}])
def test_two_machines_are_said(make, machine, different):
    random = np.random.default_rng(10)
    rows = [make.row("peer", random.lognormal(3, 0.02, 100), "peer"), make.row("ours", random.lognormal(2, 0.02, 100))]
    twice = [make.row(row.name, 2 * np.array(row.samples_ms), row.kind) for row in rows]
    found = compare(make.record(rows), make.record(twice, machine={**machine, **different}))
    assert any(note.startswith("Two machines") for note in found.notes)
    assert {one.judgement for one in found.verdicts} == {"slower"}


def test_rows_of_one_run_only_and_a_busy_machine_are_named(make, machine):
    times = np.full(40, 10.0)
    first = make.record([make.row("ours", times), make.row("old", times)], machine={**machine, "busy": True})
    notes = compare(first, make.record([make.row("ours", times), make.row("new", times)], "b.json")).notes
    assert "only in a.json: old" in notes
    assert "only in b.json: new" in notes
    assert "a.json was measured on a busy machine" in notes


def test_runs_without_a_common_row_or_of_another_size_are_refused(make):
    first, other = make.record([make.row("ours", [1.0])]), make.record([make.row("theirs", [1.0])], "b.json")
    with pytest.raises(InputError, match=r"a.json and b.json have no row in common: ours \(single_stream\); theirs"):
        compare(first, other)
    smaller = {"architecture": "resnet50", "input": {"height": 128, "width": 128, "channels": 3}}
    with pytest.raises(
        InputError, match=r"a.json measured resnet50 at 224 × 224 × 3, b.json resnet50 at 128 × 128 × 3"
    ):
        compare(first, make.record([make.row("ours", [1.0])], "b.json", bundle=smaller))


def test_the_lines_fit_a_terminal_and_give_every_row(make):
    random = np.random.default_rng(11)
    names = ["published snippet (eager PyTorch) in a long name", "ours", "few"]
    counts = {"few": 5}
    runs = [
        make.record([make.row(name, random.lognormal(7, 0.3, counts.get(name, 60)), "peer") for name in names])
        for _ in range(2)
    ]
    said = list(lines(compare(*runs)))
    assert max(map(len, said)) <= 80
    assert Counter(word for line in said for word in ("cannot tell",) if line.endswith(word))["cannot tell"] == 3
    assert "  5 samples, 30 needed" in said


def test_an_interval_covers_the_median_of_samples_that_remember(make):
    random, covered = np.random.default_rng(12), 0
    for _ in range(100):
        samples = np.repeat(random.normal(size=40), 5) + 0.3 * random.normal(size=200)
        low, high = interval(level(samples))
        covered += low <= 0 <= high
    assert covered >= 88


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9, 0.97])
def test_an_interval_covers_the_level_of_autocorrelated_samples(memory):
    from scipy.signal import lfilter

    steps = np.random.default_rng(13).normal(size=(300, 500))
    series = lfilter([1], [1, -memory], steps, axis=1)[:, 400:]
    ends = [interval(level(samples)) for samples in series]
    assert sum(low <= 0 <= high for low, high in ends) >= 0.92 * 300


def test_correlated_samples_are_worth_less():
    random = np.random.default_rng(13)
    assert autocorrelation_time(random.normal(size=400)) < 1.4
    assert autocorrelation_time(np.repeat(random.normal(size=20), 20)) > 15
    assert autocorrelation_time(np.full(200, 3.0)) == 1


def test_the_spread_between_processes_counts():
    """Ten samples of each of five processes that differ by 1: their own noise of 0.01 does not matter."""
    random = np.random.default_rng(19)
    values = np.repeat([0.0, 1.0, 2.0, 3.0, 4.0], 10) + 0.01 * random.normal(size=50)
    found = level(values, [10] * 5)
    assert found.value == pytest.approx(2, abs=0.01)
    assert found.error >= np.sqrt(2.5 / 5) - 0.01


def test_the_power_is_that_of_normal_and_t_by_hand():
    """One process: t with a million degrees of freedom is normal, 1.96 + 0.84 standard errors of √2 × 2 %."""
    assert detectable(1, 10**9, 1, 0.0, 0.02) == pytest.approx(0.02 * np.sqrt(2) * (1.959964 + 0.841621), rel=1e-3)
    assert detectable(5, 100, 6, 0.02, 0.005) > detectable(10, 100, 6, 0.02, 0.005) > 0.02


def test_holm_is_the_step_down_procedure():
    """By hand: sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, and never below the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_errors_add_up_and_the_margin_counts():
    both = combined(0.05, [Estimate(0, 0.003, 9), Estimate(0, 0.004, 9)])
    assert both.error == pytest.approx(0.005)
    assert 9 < both.freedom < 18
    assert p_value_of_change(both, 0.05) == 1
    assert p_value_of_change(both, 0.02) < 0.001 < 0.05 < p_value_of_change(both, 0.045)
    assert p_value_of_change(Estimate(0.03, 0.0, 4), 0.02) == 0
    assert p_value_of_slowdown(Estimate(0.05, 0.01, 9), 0.05) == pytest.approx(0.5)
    assert p_value_of_slowdown(Estimate(0.0, 0.01, 9), 0.05) < 0.001
    assert (p_value_of_slowdown(Estimate(0.04, 0.0, 4), 0.05), p_value_of_slowdown(Estimate(0.05, 0.0, 4), 0.05)) == (
        0,
        1,
    )


def test_a_change_within_the_margin_is_not_called_slower(make):
    """One per cent, measured so well that it differs from nothing: the layout of code alone does as much."""
    random = np.random.default_rng(11)
    before, after = (make.simulated(random, 6000, slower=slower, processes=12, spread=1e-4) for slower in (1.0, 1.01))
    (row,) = [one for one in compare(before, after).verdicts if one.row.name == "row 3"]
    assert 0 < row.low < row.high < 0.02
    assert row.judgement == "no slower"
