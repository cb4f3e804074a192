"""The report: its figures are those of the rows and the log, and it loads and names nothing."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from stageproof.serving.archive.report.page import page, write_report
from stageproof.serving.archive.report.summary import _rates, log_summary, rows_summary
from tests.pages import read_page
from tests.serving.test_score import rows_of


def test_the_figures_are_those_of_the_rows(scored):
    rows, found = rows_of(scored), rows_summary(scored)
    assert found.rows == len(rows) == 24
    assert found.statuses == Counter(row["status"] for row in rows)
    assert found.labels == Counter(row["label"] for row in rows if row["label"])
    assert found.unreadable.total() == 1
    assert [one[0] for one in found.failed] == [row["input"] for row in rows if row["status"] == "rejected"]
    for name, score in found.scores.items():
        values = [row[f"guard_{name}"] for row in rows if row[f"guard_{name}"] is not None]
        assert score.total == len(values) == 23
        assert score.above == sum(value > score.threshold for value in values)


def test_copies_and_missing_parts_are_counted(scored):
    assert rows_summary(scored).copies == 0
    scored.part(2).unlink()
    found = rows_summary(scored)
    assert (found.faulty, found.rows) == (1, 17)
    assert "Not complete:" in page(scored, found, log_summary(scored))


def test_the_log_gives_workers_losses_and_times(scored):
    log = scored.out / "log.jsonl"
    with log.open("a") as file:
        lost = {"time": 9e9, "event": "lost", "shard": 1, "worker": "process 7", "reason": "<b>gone</b>", "again": True}
        file.write(json.dumps(lost) + "\n")
        file.write('{"time": 9')  # a killed run
    found = log_summary(scored)
    assert sum(worker.images for worker in found.workers.values()) == 24
    assert found.runs == 1
    assert len(found.lost) == 1
    assert found.slowest == sorted(found.slowest, reverse=True)
    html = page(scored, rows_summary(scored), found)
    assert "&lt;b&gt;gone" in html
    assert "<b>gone" not in html


def test_images_per_second_add_up():
    rates = _rates([(0.0, 10.0, 100), (5.0, 30.0, 500)], 30.0)
    assert sum(rates) * 30.0 / len(rates) == pytest.approx(600)
    assert rates[0] == pytest.approx(10)
    assert rates[-1] == pytest.approx(20)


def test_the_page_loads_and_names_nothing(scored):
    path = write_report(scored)
    text = path.read_text()
    assert "doe-john" not in text
    assert "http" not in text
    assert "24 of 24 inputs have a row" in " ".join(read_page(text).text.split())


def test_an_output_that_was_killed_before_its_first_shard_has_a_report(scored):
    (scored.out / "log.jsonl").unlink()
    for shard in scored.shards:
        scored.part(shard).unlink()
    assert "0 of 24 inputs have a row" in " ".join(read_page(write_report(scored).read_text()).text.split())
