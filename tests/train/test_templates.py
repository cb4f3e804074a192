"""Pages and cards from templates: values are escaped where they are written, and nothing missing is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError
from matplotlib.text import Text

from stageproof.train.cards.run_index import index_page
from stageproof.train.reports import templates
from stageproof.train.reports.charts.images import data_uri, new_figure, png, svg, width
from stageproof.train.reports.tables import Table
from stageproof.train.reports.templates import html, markdown
from stageproof.train.reports.terminal import table
from tests.pages import read_page

ROOT = Path(__file__).parents[2]
EVIL = '<script>alert("1")</script>\u202e\x1b[2K\' onload=1 {{ 7 * 7 }}'
INDEX = {"answer": "x", "evaluated": True, "groups": []}


def test_text_from_data_is_text_on_a_page():
    groups = [(EVIL, [(EVIL, EVIL)])]
    page = html("train/cards/index.html.j2", title=EVIL, **{**INDEX, "answer": EVIL, "groups": groups})
    shown = '<script>alert("1")</script>\\u202e\\x1b[2K\' onload=1 {{ 7 * 7 }}'
    assert page.count("<script") == 0
    assert read_page(page).text.count(shown) == 6  # title, heading, answer, heading of the group, path, description
    assert all(character.isprintable() or character == "\n" for character in page)


def test_a_file_name_is_no_link_to_elsewhere():
    record = {"weights_sha256": "ab" * 32, "recipe": {"name": "demo", "architecture": "x"}}
    record |= {"metrics": {"accuracy": 0.5, "slices": 4}, "labels": ["CN", "AD"]}
    page = read_page(index_page("run", record, ['evaluation/"onclick=1 #?.png', "run.json"]))
    assert page.links == ["evaluation/%22onclick%3D1%20%23%3F.png", "run.json"]


def test_what_is_not_given_is_an_error():
    with pytest.raises(UndefinedError, match="'answer' is undefined"):
        html("train/cards/index.html.j2", title="x", evaluated=True, groups=[])
    with pytest.raises(AssertionError, match="prints None"):
        html("train/cards/index.html.j2", title="x", **{**INDEX, "answer": None})


def test_a_cell_of_markdown_ends_no_cell_and_begins_no_markup():
    evil = "a|b\n# *c* `d` [e](https://example.org) ![f](x) <b> &amp; \\"
    record = Table(("head",), ((evil,),), evil)
    text = markdown(
        "benchmarks/reports/benchmarks.md.j2", about="x", headline="y", busy=False, machine="z", scenarios=[]
    )
    assert text == "x. y\n\nz.\n"
    text = markdown(
        "benchmarks/reports/benchmarks.md.j2",
        about="x",
        headline="y",
        busy=True,
        machine="z",
        scenarios=[(record, ())],
    )
    cell = r"a\|b\\n# \*c\* \`d\` [e\](https://example.org) ![f\](x) \<b> \&amp; \\"
    assert f"| head |\n| --- |\n| {cell} |\n\n{cell}\n" in text
    assert "x. y **This machine was too busy to measure on.**" in text


def test_every_page_extends_the_one_base_and_every_template_compiles():
    found = [*ROOT.glob("train/*/*.j2"), *ROOT.glob("benchmarks/*/*.j2")]
    assert len(found) >= 10
    for path in found:
        templates._environment(str).get_template(path.relative_to(ROOT).as_posix())
        text = path.read_text(encoding="utf-8")
        if path.name.endswith(".html.j2") and path.name not in ("base.html.j2", "macros.html.j2"):
            assert text.startswith('{% extends "train/reports/base.html.j2" %}')
            assert "<style" not in text
        assert "| safe" not in text.replace("{{ front_matter | safe }}", "").replace(") | safe }}", "")


def test_figures_are_the_same_each_time_and_readable_on_a_phone():
    def drawn():
        figure = new_figure(4.9, 3)
        figure.subplots().set_title("a < b")
        return figure

    for write, kind in ((png, "png"), (svg, "svg+xml")):
        content = write(drawn())
        assert content == write(drawn())
        assert width(content) == 353  # CSS pixels: a text of 10 points is 10 pixels high
        assert data_uri(content).startswith(f"data:image/{kind};base64,")
    assert b"a &lt; b" in svg(drawn())
    assert b"purl.org" not in svg(drawn())
    assert drawn().findobj(Text)


def test_a_long_cell_of_a_terminal_table_continues_in_its_column():
    rows = [("[bold]a[/bold] :smile:", "one two three four", "1"), ("b", "[48.9, 53.1]", "22")]
    lines = table(("name", "words", "n"), rows, (24, 10, 3), right=(2,))
    assert lines == [
        "name                     words        n",
        "[bold]a[/bold] :smile:   one two      1",
        "                         three four",
        "b                        [48.9,      22",
        "                         53.1]",
    ]
    assert max(map(len, table((), [("x" * 200, "y")], (60, 18)))) <= 80
