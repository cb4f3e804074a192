"""A record as Markdown, for a README."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.reports.figures import TITLES, Figures, figures, number
from stageproof.benchmarks.reports.sentences import about, circumstances, headline, served, times, with_interval

_SAID = ("machine", "threads", "noise", "at most", "an image", "images", "commit")


def markdown(record: Record) -> str:
    """A sentence, a table for each scenario, and where it was measured."""
    found = figures(record.rows)
    lines = [_plain(f"{about(record)}. {headline(found)}")]
    if record.machine.get("busy"):
        lines[0] += " **This machine was too busy to measure on.**"
    for scenario, group in groupby(found, key=lambda one: one.row.scenario):
        lines += ["", *_table(TITLES[scenario], list(group))]
    facts = dict(circumstances(record))
    lines += ["", "; ".join(f"{name}: {_plain(facts[name])}" for name in _SAID if name in facts) + "."]
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Sequence[Figures]) -> Iterator[str]:
    heads = [title, "ms [95 %]", "p90", "p99", "images/s", "times faster [95 %]", "of the floor", "changed predictions"]
    cells = [
        [
            _plain(one.title),
            with_interval(one.median, one.interval),
            number(one.p90) if one.p90 else "",
            number(one.p99) if one.p99 else "",
            f"{one.row.images_per_s:.1f}" if one.row.images_per_s else "",
            times(one),
            f"{one.row.floor_share:.0%}" if one.row.floor_share is not None else "",
            f"{one.row.flips['count']} of {one.row.flips['images']}" if one.row.flips else "",
        ]
        for one in rows
    ]
    kept = [at for at in range(len(heads)) if at < 2 or any(row[at] for row in cells)]
    yield "| " + " | ".join(heads[at] for at in kept) + " |"
    yield "|" + "---|" * len(kept)
    for row in cells:
        yield "| " + " | ".join(row[at] for at in kept) + " |"
    for one in rows:
        if one.row.server:
            yield ""
            yield f"{_plain(one.row.name)}: {served(one)}."


def _plain(content: str) -> str:
    """Text that ends no cell, begins no mark-up, and stays on its line."""
    for sign in ("\\", "|", "*", "_", "`", "<", "]("):
        content = content.replace(sign, "\\" + sign)
    return " ".join(content.split())
