"""Record, figures and verdicts of the serving benchmarks, against known values."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from stageproof.benchmarks.records.schema import write
from stageproof.benchmarks.serving.analysis.figures import bootstrap, difference, figures, of, ratio
from stageproof.benchmarks.serving.analysis.record import Cell, build, parsed, read_record
from stageproof.benchmarks.serving.analysis.tables import lines, markdown
from stageproof.benchmarks.serving.analysis.verdicts import verdicts
from stageproof.runtime import InputError

SINGLE_MS = 20.0
LOADS = ("1 client", "8 clients", "32 clients", "30 % load", "50 % load", "70 % load")


def cell(server="stageproof", load="1 client", round_=0, latency=21.0, per_s=40.0, seconds=10.1, **about) -> Cell:
    """A cell whose latencies are spread by 5 % around `latency`."""
    count = round(per_s * seconds)
    random = np.random.default_rng([round_, count])
    latencies = latency * random.uniform(0.95, 1.05, count)
    ended = (np.arange(count) + random.uniform(0, 1, count)) * seconds / count
    open_ = {"offered_per_s": per_s, "late_ms": 0.4} if "%" in load else {}
    first = Cell(server, load, round_, seconds, latencies.round(3).tolist(), ended.round(4).tolist(), {}, **open_)
    return replace(first, server_cpu_ms=30.0, pss_bytes=200_000_000, client_cpu=0.02, **about)


def content(machine, ours=40.0, theirs=20.0, latency=21.0, tail=60.0, **about):
    """A record of ours and of one peer."""
    cells = []
    for load in LOADS:
        for name, rate in (("stageproof", ours), ("fastapi", theirs)):
            at = tail if load == "50 % load" else latency
            cells += [cell(name, load, round_, at, rate) for round_ in range(2)]
    cells[0] = replace(cells[0], stages_ms={"engine": 18.0, "batch": 1.0})
    random = np.random.default_rng(0)
    alone = {
        "latencies_ms": (SINGLE_MS * random.uniform(0.95, 1.05, 400)).tolist(),
        "stream_ms": [25, 25.2, 24.9, 25.1],
    }
    described = [
        {"name": name, "title": title, "settings": "one | two", "versions": {"numpy": "2"}, "start_s": 1.5}
        for name, title in (("stageproof", "Stageproof"), ("fastapi", "FastAPI"))
    ]
    first = {
        "commit": "0123",
        "started": "2026-01-01T00:00:00+00:00",
        "circumstances": machine,
        "bundle": {"architecture": "resnet50", "input": {"height": 128, "width": 128}},
        "precision": "fp32",
        "images": {"count": 32, "source": "phantoms"},
        "threads": 2,
        "rounds": 2,
        "predictor": {**alone, "batch": 16},
        "servers": described,
        "notes": ["litserve was not measured: it is not here."],
    }
    ceiling = [cell("client alone", "1 client", seconds=1.0)]
    return build(cells, ceiling, **{**first, **about})


def test_record_round_trip(machine, tmp_path):
    written = content(machine)
    write(written, tmp_path / "r.json")
    read = read_record(tmp_path / "r.json")
    assert list(map(asdict, read.cells)) == written["cells"]
    assert read.facts["predictor"] == written["predictor"]
    assert read.servers["fastapi"]["title"] == "FastAPI"
    (tmp_path / "half.json").write_text((tmp_path / "r.json").read_text()[:5000])
    with pytest.raises(InputError, match=r"half\.json is not JSON, or is truncated"):
        read_record(tmp_path / "half.json")
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        read_record(tmp_path / "none.json")


def test_records_that_are_none(machine):
    whole = json.loads(json.dumps(content(machine)))
    with pytest.raises(InputError, match=r"x has schema '1', expected 'serving-1'"):
        parsed({**whole, "schema": 1}, "x")
    with pytest.raises(InputError, match="x: cells, notes cannot be read"):
        parsed({**whole, "cells": None, "notes": {}}, "x")
    whole["cells"][0]["ended_s"].pop()
    with pytest.raises(InputError, match="x, cells: latencies_ms, ended_s of a cell cannot be read"):
        parsed(whole, "x")


def test_percentiles_and_rates():
    latencies = np.linspace(1, 1000, 1000).tolist()
    ended = np.sort(np.random.default_rng(0).uniform(0, 10, 1000)).tolist()
    halves = [
        Cell("s", "1 client", at, 5.0, latencies[at::2], [e / 2 for e in ended[at::2]], {"HTTP 503": at + 1})
        for at in range(2)
    ]
    found = of(halves)
    assert found.answered == 1000
    assert found.errors == {"HTTP 503": 3}
    assert found.per_s == pytest.approx(100)
    assert found.p50 == pytest.approx(500.5)
    assert found.p99 == pytest.approx(990.01)
    assert found.per_s_interval
    assert found.per_s_interval[0] < 100 < found.per_s_interval[1]
    few = replace(halves[0], seconds=10.0, latencies_ms=latencies[:661], ended_s=ended[:661])
    assert of([few]).p99 is None, "MLPerf's rule: the second slowest of 662"
    assert of([replace(few, latencies_ms=latencies[:662], ended_s=ended[:662])]).p99 is not None
    none = of([replace(few, latencies_ms=[], ended_s=[])])
    assert (none.answered, none.p50, none.p50_interval, none.p99) == (0, None, None, None)


def test_bootstrap_covers_the_percentile_of_autocorrelated_latencies():
    random = np.random.default_rng(5)
    covered = 0
    for _ in range(20):
        batches = np.repeat(random.exponential(10.0, 150), 8)  # requests of one batch are equally slow
        low, high = bootstrap(batches, 0.9)
        assert low < high
        covered += low <= 10 * np.log(10) <= high
    assert covered >= 16
    narrow = bootstrap(random.exponential(10.0, 1200), 0.9)
    assert narrow[1] - narrow[0] < high - low, "as many independent latencies say more"


def test_ratio_and_difference():
    random = np.random.default_rng(0)
    slow, fast = (level * random.uniform(0.9, 1.1, 60) for level in (30.0, 20.0))
    times, within = ratio(fast, slow)
    assert times == pytest.approx(1.5, rel=0.05)
    assert within[0] < 1.5 < within[1]
    over, within = difference(slow, fast)
    assert over == pytest.approx(10, abs=1)
    assert within[0] < over < within[1]
    times, within = ratio([10.0, 10.0, 10.1], [20.0, 20.1])
    assert times == pytest.approx(2.0, rel=0.01)
    assert within[0] < times < within[1]


def test_verdicts_follow_the_figures(machine):
    good = verdicts(parsed(content(machine), "x"))
    assert [one.word for one in good] == ["pass"] * 4
    assert "ms (+0." in good[0].figure
    slow = verdicts(parsed(content(machine, latency=22.5), "x"))
    assert [one.word for one in slow] == ["fail", "pass", "pass", "pass"]
    few = verdicts(parsed(content(machine, ours=33.0, theirs=30.0), "x"))
    assert [one.met for one in few] == [True, False, False, True]
    assert "FastAPI" in few[2].figure
    late = verdicts(parsed(content(machine, tail=90.0), "x"))
    assert [one.met for one in late] == [True, True, True, False]
    short = content(machine)
    short["cells"] = [one for one in short["cells"] if one["load"] != "50 % load" and one["server"] != "fastapi"]
    left = verdicts(parsed(short, "x"))
    assert [one.word for one in left] == ["pass", "pass", "not measured", "not measured"]
    assert "0 requests, 662 are needed" in left[3].figure


def test_tables(machine):
    record = parsed(content(machine), "x")
    shown = "\n".join(lines(record))
    assert all(len(line) <= 80 for line in shown.splitlines())
    for text in ("Stageproof", "FastAPI", "32 clients", "pass: 1 client", "litserve was not measured", "40.0"):
        assert text in shown
    page = markdown(record)
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)
    assert "one \\| two" in page
    assert "18.00 | 1.0 |" in page
    assert "do not publish" in markdown(parsed(content({**machine, "busy": True}), "x"))


def test_fastest_first(machine):
    found = figures(parsed(content(machine, ours=20.0, theirs=25.0), "x").cells)
    assert [one.server for one in found if one.load == "32 clients"] == ["fastapi", "stageproof"]
    assert [one.load for one in found[::2]] == list(LOADS)
