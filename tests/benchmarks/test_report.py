"""What a record says in the terminal, on the page and in Markdown; and what is no record."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from stageproof.benchmarks.__main__ import main
from stageproof.benchmarks.compare.statistics import interval, interval_of_times, level
from stageproof.benchmarks.records.read import parsed, read_record
from stageproof.benchmarks.records.schema import STAGES
from stageproof.benchmarks.reports import charts
from stageproof.benchmarks.reports.figures import LEAST_FOR, SNIPPET, contenders, figures, number
from stageproof.benchmarks.reports.markdown import markdown
from stageproof.benchmarks.reports.page import page
from stageproof.benchmarks.reports.text import lines
from stageproof.runtime import InputError
from tests.pages import read_page

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
EAGER = "published snippet (eager PyTorch)"
FLOORS = {name: {"gflop_s": rate, "how": "matrix products"} for name, rate in (("fp32", 200.0), ("int8", 800.0))}
FLOORS["memory"] = {"gb_s": 20.0, "how": "copying"}


@pytest.fixture(scope="module")
def whole(make):
    """A record with everything in it: times are real ones of small calculations."""
    timed = make.timed({"fast": 2_000, "middle": 6_000, "peer one": 8_000, "snippet": 20_000}, rounds=700)
    fast, middle, peer, snippet = (row.samples_ms for row in timed)
    about = {"file_bytes": 23_000_000, "peak_rss_bytes": 250_000_000, "load_s": 0.61, "first_answer_s": 0.93}
    spent = {stage: [share * time for time in fast] for stage, share in zip(STAGES, (2, 1, 1, 1, 90, 5), strict=True)}
    flips = {"count": 3, "images": 512}
    first = {**about, "precision": "int8", "flips": flips, "stages_ms": spent, "floor_ms": 0.01, "floor_share": 0.84}
    served = {"offered_per_s": 70.0, "latency_bound_ms": 1e6, "lost": 0, "seconds": 600.0}
    rows = [
        make.row(EAGER, snippet, "peer", backend="torch", flips={"count": 0, "images": 512}),
        make.row("Predictor, openvino int8", fast, **first),
        make.row("plain OpenVINO int8", peer, "peer", **{**about, "flips": {"count": 9, "images": 512}}),
        make.row("engine, openvino int8", middle, "engine", scenario="engine", batch=1, **about),
        make.row("engine, openvino int8", middle[:40], "engine", scenario="engine", batch=8, **about),
        make.row("Predictor, openvino int8", middle[:5], scenario="offline", batch=32),
        make.row("Predictor, openvino int8", peer, scenario="server", batch=8, server=served),
    ]
    scaling = {
        "images": [{"images": count, "seconds": count / 80, "rss_bytes": 3e8} for count in (100, 1000, 10000)],
        "workers": [
            {"workers": 1, "seconds": 9.0, "images_per_s": 80.0},
            {"workers": 2, "seconds": 6, "images_per_s": 120},
        ],
    }
    return make.content(rows, floors=FLOORS, scaling=scaling, notes=["<peers> & others were left out"])


@pytest.fixture(scope="module")
def html(whole) -> str:
    return page(parsed(whole, "a.json"))


def test_the_page_is_self_contained_and_well_formed(html):
    tree = read_page(html)
    assert len(tree.pictures) == 4 + 5  # samples of each scenario; changes, roofline, stages twice, images
    assert len(html.encode()) < 600_000


def test_the_first_words_say_how_fast_how_sure_and_where(html, whole):
    first = read_page(html).text.partition("single stream: ")[0]
    fast = parsed(whole, "a").rows[1].samples_ms
    assert f"Predictor, openvino int8 predicts one image in {number(np.median(fast))} [" in first
    assert "times faster than the published snippet, at 84% of this machine's peak int8 rate" in first
    assert "a CPU" in first and "1.2% of a fixed calculation" in first  # noqa: PT018


def test_every_sample_of_every_row_is_drawn_within_its_strip(whole):
    rows = figures(parsed(whole, "a").rows)
    (axes,) = charts.samples(rows).axes
    for at, (one, dots) in enumerate(zip(rows, axes.collections, strict=True)):
        x, y = dots.get_offsets().T
        assert x.tolist() == one.row.samples_ms
        assert at < y.min() <= y.max() < at + 1
        assert (np.diff(y) > 0).all()
        assert axes.get_xlim()[0] < x.min() <= x.max() < axes.get_xlim()[1]
    medians = [line.get_xdata()[0] for line in axes.lines[::2]]
    assert medians == [one.median for one in rows]


def texts(figure) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every text that is drawn, and its box: left, bottom, right, top, in pixels at the size of the page."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip()]
    ticks = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    hidden = {
        label
        for axis in ticks
        for tick in axis.get_major_ticks()
        for label in (tick.label1, tick.label2)
        if not axis.get_view_interval().min() <= tick.get_loc() <= axis.get_view_interval().max()
    }
    # Of the text alone: the extent of an annotation includes its line.
    return [(one.get_text(), Text.get_window_extent(one).extents) for one in shown if one not in hidden]


def collisions(figure) -> list[tuple[str, str]]:
    boxes = texts(figure)
    return [
        (one, other)
        for at, (one, a) in enumerate(boxes)
        for other, b in boxes[:at]
        if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
    ]


def drawn(record) -> list:
    rows = figures(record.rows)
    single = [one for one in rows if one.row.scenario == "single_stream"]
    strips = [charts.samples([one for one in rows if one.row.scenario == name]) for name in charts_of(rows)]
    rest = [charts.changed_predictions(single), charts.roofline(rows, record)]
    if any(charts.stage_medians(one) for one in single):
        rest += [charts.stages(single), charts.stages(single, without="compute")]
    return [*strips, *(figure for figure in rest if figure is not None)]


def charts_of(rows) -> list[str]:
    return list(dict.fromkeys(one.row.scenario for one in rows))


RECORDS = sorted(RESULTS.glob("*.json"))
IN_CHARTS = [
    pytest.param(
        path, id=path.stem, marks=[pytest.mark.slow] * (path != max(RECORDS, key=lambda one: one.stat().st_size))
    )
    for path in RECORDS
]
"""The longest record is drawn in every run of the tests, the others in slow ones."""


@pytest.mark.parametrize("name", IN_CHARTS)
def test_no_label_covers_another_or_is_cut_off_in_the_charts_of_real_records(name):
    record = read_record(name)
    assert "[-" not in page(record), "no interval of a time goes below 0"
    made = drawn(record)
    assert len(made) >= 2
    for figure in made:
        assert collisions(figure) == []
        _, _, width, height = figure.bbox.extents
        for text, (left, bottom, right, top) in texts(figure):
            assert min(left, bottom) >= -1, text
            assert right <= width + 1, text
            assert top <= height + 1, text


def test_numbers_of_a_crowd_of_marks_cover_neither_each_other_nor_a_mark(make):
    flips = {"count": 1, "images": 100}
    rows = [make.row(f"row {at}", [3 + at / 1e3], "peer", flips=flips) for at in range(45)]
    figure = charts.changed_predictions(figures(rows))
    assert collisions(figure) == []
    (axes,) = figure.axes
    numbers = [box for text, box in texts(figure) if text.isdigit() and box[1] > axes.bbox.y1]
    assert len(numbers) == 45


def test_a_label_that_covers_another_is_found(make):
    figure = charts.samples(figures([make.row("row", [3.0, 4.0])]))
    figure.axes[0].text(0.02, 0.3, "over the name", transform=figure.axes[0].get_yaxis_transform())
    assert len(collisions(figure)) == 1


def test_the_front_and_the_roofline_are_those_of_the_record(whole):
    record = parsed(whole, "a")
    rows = figures(record.rows)
    single = [one for one in rows if one.row.scenario == "single_stream"]
    (axes,) = charts.changed_predictions(single).axes
    changed = {one.median: 100 * one.row.flips["count"] / one.row.flips["images"] for one in single}
    x, y = axes.lines[-1].get_data()
    assert dict(zip(x[:-1], y[:-1], strict=True)).items() <= changed.items()
    assert all(any(a <= median and b <= share for a, b in zip(x, y, strict=True)) for median, share in changed.items())
    (axes,) = charts.roofline(rows, record).axes
    roof, fp32, int8 = (line.get_data() for line in axes.lines)
    assert np.divide(*roof[::-1]) == pytest.approx(20)
    assert (set(fp32[1]), set(int8[1])) == ({200.0}, {800.0})


def test_what_comes_from_outside_is_text(make):
    evil = "<script>alert(1)</script>|`x`"
    rows = [make.row(evil, np.full(20, 2.0), settings=evil), make.row(EAGER, np.full(20, 9.0), "peer")]
    record = parsed(make.content(rows, machine={"cpu": evil}, notes=[evil]), "a.json")
    tree = read_page(page(record))
    assert "script" not in tree.tags
    assert evil in tree.text
    written = markdown(record)
    assert "<script" not in written.replace("\\<", "")
    assert "\\`x\\`" in written
    assert {line.replace("\\|", "").count("|") for line in written.splitlines() if line.startswith("|")} == {5}


def test_a_record_with_nothing_but_samples_is_reported(make):
    record = make.record([make.row("Predictor, onnx fp32", [3.0])], machine={}, work={})
    assert "Predictor, onnx fp32 predicts one image in 3.000 ms." in read_page(page(record)).text
    assert "3.00" in "".join(lines(record))
    assert "3.000" in markdown(record)


def test_a_busy_machine_is_said_everywhere(make, machine):
    record = make.record([make.row("Predictor", [3.0] * 20)], machine={**machine, "busy": True})
    for said in (page(record), " ".join(lines(record)), markdown(record)):
        assert "too busy to measure on" in said


def test_the_terminal_has_80_columns_the_fastest_first_and_the_same_figures(whole, make):
    record = parsed(whole, "a.json")
    said = list(lines(record))
    assert max(map(len, said)) <= 80
    titles = [line.split("  ")[0] for line in said if " 95 %" in line]
    assert titles[1] == "per image, in batches"
    assert said[1].startswith("Predictor, openvino int8")
    assert said[1].split()[-1] == "84%"
    assert re.search(r" [\d.]+× +84%$", said[1])
    flat = " ".join(" ".join(said).split())
    assert "Predictor, openvino int8: 70.0/s for 600 s, bound 1000000 ms: met at p99; 0 lost" in flat
    slow = make.record([make.row("a name that is longer than any of the names in use", np.full(700, 123456.7))])
    assert max(map(len, lines(slow))) <= 80


def test_percentiles_are_given_only_where_the_samples_carry_them(make):
    """MLPerf LoadGen's rule: at most one of so many samples is beyond the percentile in less than 1 of 100 runs."""
    from scipy.stats import binom

    for share, least in LEAST_FOR.items():
        assert binom.cdf(1, least, 1 - share) <= 0.01 < binom.cdf(1, least - 1, 1 - share)
    rows = [make.row(str(count), np.arange(1.0, count + 1)) for count in (63, 64, 661, 662)]
    found = {one.row.name: (one.p90 is not None, one.p99 is not None) for one in figures(rows)}
    assert found == {"63": (False, False), "64": (True, False), "661": (True, False), "662": (True, True)}


def test_times_faster_are_taken_round_by_round(make):
    """A machine that slows down for all changes no ratio."""
    drift = np.linspace(1, 3, 50)
    found = figures([make.row(EAGER, 12 * drift, "peer"), make.row("ours", 3 * drift)])
    assert (found[0].faster, *found[0].faster_interval) == pytest.approx((4, 4, 4))
    assert found[1].faster is None


def test_a_contender_costs_what_its_first_scenario_shows(whole):
    """Later ones run in the same process, which never gives memory back."""
    rows = contenders(figures(parsed(whole, "a").rows))
    assert [row.name for row in rows] == ["Predictor, openvino int8", "plain OpenVINO int8", EAGER]
    assert rows[0].file_bytes == 23_000_000


def test_the_snippet_is_known_by_its_name():
    from stageproof.benchmarks.peers import eager

    assert eager.SNIPPET.startswith(SNIPPET)


def test_numbers_have_four_figures():
    said = " ".join(number(value) for value in (0.01234, 1.2345, 12.345, 123.45, 1234.5))
    assert said == "0.012 1.234 12.35 123.5 1234"


def refused(tmp_path, text: str) -> str:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.json") as raised:
        read_record(path)
    return str(raised.value)


def test_what_is_no_record_is_refused(tmp_path, whole):
    text = json.dumps(whole)
    assert "truncated" in refused(tmp_path, text[: len(text) // 2])
    assert "no schema" in refused(tmp_path, "[1, 2]")
    assert "no schema" in refused(tmp_path, '{"latency_ms": {}}')
    assert "has schema 2, this code reads 1" in refused(tmp_path, json.dumps({**whole, "schema": 2}))
    assert "nothing was measured" in refused(tmp_path, json.dumps({**whole, "rows": []}))
    assert "truncated" in refused(tmp_path, "[" * 100_000)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_record(tmp_path / "b.json")
    with pytest.raises(InputError, match="Is a directory"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("samples_ms", [], "samples_ms is not a list of milliseconds above 0"),
        ("samples_ms", [1.0, float("nan")], "samples_ms"),
        ("samples_ms", [1.0, "2"], "samples_ms"),
        ("samples_ms", [1.0, 0], "samples_ms"),
        ("name", None, "has no name"),
        ("kind", "rival", "kind is 'rival', expected predictor, engine, peer"),
        ("batch", "8", "batch cannot be read"),
        ("stages_ms", {"read": 1}, "stages_ms cannot be read"),
        ("flips", {"count": 1}, "flips cannot be read"),
        ("floor_share", "84%", "floor_share cannot be read"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, whole, key, value, said):
    rows = [whole["rows"][0], {**whole["rows"][1], key: value}]
    assert f"row 1{'' if said.startswith('has') else ':'} {said}" in refused(
        tmp_path, json.dumps({**whole, "rows": rows})
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("floors", {"fp32": {"gflop_s": 0}}, "floors cannot be read"),
        ("floors", [1], "floors is a list, expected an object"),
        ("scaling", {"images": [{"images": 100}]}, "scaling cannot be read"),
        ("work", {"gflop_per_image": "8"}, "work cannot be read"),
        ("notes", "none", "notes cannot be read"),
        ("circumstances", "a CPU", "circumstances is text, expected an object"),
    ],
)
def test_facts_that_cannot_be_read_are_named(tmp_path, whole, key, value, said):
    assert said in refused(tmp_path, json.dumps({**whole, key: value}))


def test_an_old_record_becomes_a_page_and_markdown(tmp_path, whole, capsys):
    (tmp_path / "a.json").write_text(json.dumps(whole))
    options = ["--report", str(tmp_path / "a.json")]
    assert main([*options, "--html", str(tmp_path / "a.html"), "--markdown", str(tmp_path / "a.md")]) == 0
    assert (tmp_path / "a.html").read_text() == page(read_record(tmp_path / "a.json"))
    assert (tmp_path / "a.md").read_text().startswith("resnet50 at 224 × 224. Predictor, openvino int8")
    assert "Predictor, openvino int8" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "a.html", "a.md"}


def test_files_that_cannot_be_written_are_said_first(tmp_path, whole, capsys):
    (tmp_path / "a.json").write_text(json.dumps(whole))
    assert main(["--report", str(tmp_path / "a.json"), "--html", str(tmp_path / "no" / "a.html")]) == 2
    assert "expected a file in an existing folder" in capsys.readouterr().err
    assert main(["--report", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.json")]) == 2
    assert "name the same file twice" in capsys.readouterr().err
    assert json.loads((tmp_path / "a.json").read_text()) == whole
    assert main(["--report", str(tmp_path / "a.json"), "--compare", "a", "b"]) == 2
    assert "--compare writes no files" in capsys.readouterr().err


def test_comparing_ends_with_1_where_something_is_slower(tmp_path, make, capsys):
    random = np.random.default_rng(1)
    times = random.lognormal(2, 0.02, (2, 100))
    for name, factor in (("a", 1.0), ("b", 1.3)):
        rows = [make.row("plain", times[0], "peer"), make.row("ours", factor * times[1])]
        (tmp_path / f"{name}.json").write_text(json.dumps(make.content(rows)))
    a, b = (str(tmp_path / f"{name}.json") for name in "ab")
    assert main(["--compare", a, a]) == 0
    assert main(["--compare", a, b]) == 1
    assert re.search(r"^ours .* slower$", capsys.readouterr().out, re.MULTILINE)
    assert main(["--compare", b, a]) == 0
    assert main(["--compare", a, str(tmp_path / "none.json")]) == 2


def test_the_interval_of_a_time_never_reaches_below_zero():
    """Samples that drift by the block, as on a machine that slows down for seconds: few blocks, a wide interval."""
    draw = np.random.default_rng(4)
    for _ in range(20):
        samples = np.repeat(np.exp(draw.normal(0, 2, 6)), 10)
        low, high = interval_of_times(samples)
        assert 0 < low <= np.median(samples) <= high
        assert interval(level(samples))[0] < low
