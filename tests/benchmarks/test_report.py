"""What a record says in the terminal, on the page and in Markdown; and what is no record."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from stageproof.benchmarks.__main__ import main
from stageproof.benchmarks.compare.statistics import interval, interval_of_times, level
from stageproof.benchmarks.records.read import parsed, read_record
from stageproof.benchmarks.records.schema import STAGES
from stageproof.benchmarks.reports.figures import LEAST_FOR, SNIPPET, contenders, figures, number
from stageproof.benchmarks.reports.html import page
from stageproof.benchmarks.reports.markdown import markdown
from stageproof.benchmarks.reports.svg import WIDTH, Scale, box_of, numbered, svg
from stageproof.benchmarks.reports.text import lines
from stageproof.runtime import InputError

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


class Tags(HTMLParser):
    """Tags that are open, those that fetch, and all text."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def test_the_page_stands_alone_and_is_whole(html):
    tags = read(html)
    assert tags.open == []
    assert not {"script", "link", "iframe", "object"} & set(tags.seen)
    assert not re.search(r"https?:|src=|@import|url\((?!#)", html)
    assert "width=device-width" in html
    assert len(html.encode()) < 200_000


def test_the_first_words_say_how_fast_how_sure_and_where(html, whole):
    first = read(html.partition("<h2>")[0]).text
    fast = parsed(whole, "a").rows[1].samples_ms
    assert f"Predictor, openvino int8 answers an image in {number(np.median(fast))} [" in first
    assert "times faster than the published snippet, at 84% of what this machine's int8 arithmetic allows" in first
    assert "a CPU" in first and "1.2% of a fixed calculation" in first  # noqa: PT018


def test_every_sample_of_every_row_is_drawn_within_its_strip(html, whole):
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    strips = [drawing for drawing in drawings if "every sample of" in drawing]
    assert len(strips) == 4
    for row, dots in zip(figures(parsed(whole, "a").rows), re.findall(r'class="dots" d="([^"]*)"', html), strict=True):
        places = [tuple(map(float, place)) for place in re.findall(r"M([\d.-]+) ([\d.-]+)h0", dots)]
        assert 0 < min(x for x, _ in places) <= max(x for x, _ in places) < WIDTH
        # 24 units high: so many lie apart, and each place holds one sample or several that round to it.
        assert min(len(row.row.samples_ms), 40) <= len(places) <= len(row.row.samples_ms)


def test_drawings_are_well_formed_and_stay_inside(html):
    drawings = re.findall(r"<svg viewBox=.*?</svg>", html, re.DOTALL)
    assert {"roofline", "changed predictions against latency", "seconds against images"} <= {
        title for one in drawings for title in re.findall("<title>(.*?)</title>", one)
    }
    for drawing in drawings:
        tree = ElementTree.fromstring(drawing)
        _, _, width, height = map(float, tree.get("viewBox").split())
        for shape in tree.iter():
            for key, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
                assert 0 <= float(shape.get(key, 0)) <= most, (key, drawing[:200])


def covered(drawing: str) -> list[tuple[str, float, float, float, float]]:
    """Every text of a drawing and the box that it covers, in the widest of the usual fonts."""
    found = []
    for element in ElementTree.fromstring(drawing).iter():
        if element.tag.endswith("text"):
            x, y, said = float(element.get("x")), float(element.get("y")), element.text
            width = 8.0 * len(said)
            left = x - {"start": 0, "middle": width / 2, "end": width}[element.get("text-anchor", "start")]
            found.append((said, left, y - 9.5, left + width, y + 1.5))
    return found


def collisions(drawing: str) -> list[tuple[str, str]]:
    boxes = covered(drawing)
    return [
        (one[0], other[0])
        for at, one in enumerate(boxes)
        for other in boxes[:at]
        if one[1] < other[3] and other[1] < one[3] and one[2] < other[4] and other[2] < one[4]
    ]


@pytest.mark.parametrize("name", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_no_label_covers_another_in_the_drawings_of_real_records(name):
    html = page(read_record(name))
    assert "[-" not in html, "no interval of a time goes below 0"
    drawings = re.findall(r"<svg viewBox=\"0 0 420.*?</svg>", html, re.DOTALL)
    assert len(drawings) >= 2
    for drawing in drawings:
        assert collisions(drawing) == []


def test_numbers_of_a_crowd_of_marks_cover_neither_each_other_nor_a_mark():
    points = [(200 + at % 5 * 3, 150 + at // 5 * 3, "peer", at + 1) for at in range(30)]
    drawn = svg(300, numbered(points, 400, 290, [box_of(190, 120, "int8 1969")]), "crowd")
    assert collisions(drawn) == []
    boxes = covered(drawn)
    assert len(boxes) == 30
    for _, left, top, right, bottom in boxes:
        assert 0 < left < right < 400
        assert not any(left < x + 3 and x - 3 < right and top < y + 3 and y - 3 < bottom for x, y, _, _ in points)


def test_what_comes_from_outside_is_text(make):
    evil = "<script>alert(1)</script>|`x`"
    rows = [make.row(evil, np.full(20, 2.0), settings=evil), make.row(EAGER, np.full(20, 9.0), "peer")]
    record = parsed(make.content(rows, machine={"cpu": evil}, notes=[evil]), "a.json")
    assert "<script" not in page(record)
    written = markdown(record)
    assert "<script" not in written.replace("\\<", "")
    assert {line.replace("\\|", "").count("|") for line in written.splitlines() if line.startswith("|")} == {5}


def test_a_record_with_nothing_but_samples_is_reported(make):
    record = make.record([make.row("Predictor, onnx fp32", [3.0])], machine={}, work={})
    assert "Predictor, onnx fp32 answers an image in 3.000 ms." in read(page(record)).text
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
    assert titles[1] == "an image, in batches"
    assert said[1].startswith("Predictor, openvino int8")
    assert said[1].split()[-1] == "84%"
    assert re.search(r" [\d.]+× +84%$", said[1])
    assert "  70.0/s for 600 s, bound 1000000 ms: held at p99; 0 lost" in said
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


@pytest.mark.parametrize("scale", [Scale(3.1, 48, 0, 100), Scale(0.2, 0.23, 0, 1), Scale(0, 1.7, 0, 1, False)])
def test_ticks_are_few_round_and_inside(scale):
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 7
    assert all(scale.low <= tick <= scale.high for tick in ticks)


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
