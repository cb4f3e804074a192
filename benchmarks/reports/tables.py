"""Tables of a record, the same on the page and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from stageproof.benchmarks.reports.charts import stage_medians
from stageproof.benchmarks.reports.figures import TITLES, Figures, contenders, number
from stageproof.benchmarks.reports.sentences import served, times, with_interval
from stageproof.train.reports.tables import Table

_HEADS = ("ms [95 %]", "p90", "p99", "images/s", "speed-up [95 %]", "share of peak", "changed predictions")


@dataclass(frozen=True)
class Scenario:
    """The rows of one scenario."""

    name: str
    """With spaces, such as ``single stream``."""
    title: str
    rows: tuple[Figures, ...]
    heads: tuple[str, ...]
    """Columns that any row has a value in."""
    cells: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    """Whether each row of a server met its latency bound."""


def scenarios(found: Sequence[Figures]) -> list[Scenario]:
    """The scenarios in the order of `TITLES`."""
    made = []
    for name, group in groupby(found, key=lambda one: one.row.scenario):
        rows = tuple(group)
        cells = [_cells(one) for one in rows]
        kept = [at for at in range(len(_HEADS)) if at == 0 or any(row[at] for row in cells)]
        heads, shown = tuple(_HEADS[at] for at in kept), tuple(tuple(row[at] for at in kept) for row in cells)
        notes = tuple(f"{one.row.name}: {served(one)}" for one in rows if one.row.server)
        made.append(Scenario(name.replace("_", " "), TITLES[name], rows, heads, shown, notes))
    return made


def _cells(one: Figures) -> tuple[str, ...]:
    row = one.row
    return (
        with_interval(one.median, one.interval),
        *(number(value) if value else "" for value in (one.p90, one.p99)),
        f"{row.images_per_s:.1f}" if row.images_per_s else "",
        times(one),
        f"{row.floor_share:.0%}" if row.floor_share is not None else "",
        f"{row.flips['count']} of {row.flips['images']}" if row.flips else "",
    )


def numbered(scenario: Scenario) -> Table:
    """The table of a scenario with the number of each row, as in the charts, and its number of samples."""
    ends = [f"{len(one.row.samples_ms)}{'' if one.row.stable else ', not stable'}" for one in scenario.rows]
    rows = tuple(
        (str(one.number), one.title, *cells, end)
        for one, cells, end in zip(scenario.rows, scenario.cells, ends, strict=True)
    )
    note = "The number after the name is the batch size." if scenario.name in ("engine", "offline") else ""
    return Table(("", "", *scenario.heads, "samples"), rows, note)


def named(scenario: Scenario) -> Table:
    """The table of a scenario, headed by its title."""
    rows = tuple((one.title, *cells) for one, cells in zip(scenario.rows, scenario.cells, strict=True))
    return Table((scenario.title, *scenario.heads), rows)


def stage_times(single: Sequence[Figures]) -> Table:
    """Median time of each stage, for the rows that have stages."""
    rows = [(one, stage_medians(one)) for one in single if stage_medians(one)]
    names = list(dict.fromkeys(stage for _, medians in rows for stage in medians))
    cells = tuple(
        (
            f"{one.number}. {one.row.name}",
            *(f"{medians[stage]:.3f}" if stage in medians else "" for stage in names),
        )
        for one, medians in rows
    )
    return Table(("median ms", *names), cells, "Medians of the same queries, with a clock at each stage.")


def cost_by_images(entries: Sequence[dict[str, Any]]) -> Table:
    """Time and memory against the number of images."""
    rows = tuple(
        (
            f"{one['images']:,}",
            f"{one['seconds']:.2f}",
            f"{one['seconds'] / one['images'] * 1e3:.2f}",
            f"{one['rss_bytes'] / 1e6:.0f}",
        )
        for one in entries
    )
    return Table(("images", "seconds", "ms per image", "MB of memory"), rows)


def cost_by_workers(entries: Sequence[dict[str, Any]]) -> Table:
    """Throughput against the number of workers."""
    first = entries[0]["images_per_s"] / entries[0]["workers"] if entries else 1.0
    rows = tuple(
        (
            str(one["workers"]),
            f"{one['seconds']:.2f}",
            f"{one['images_per_s']:.1f}",
            f"{one['images_per_s'] / one['workers'] / first:.0%}",
        )
        for one in entries
    )
    return Table(("workers", "seconds", "images/s", "efficiency per worker"), rows)


def process_costs(found: Sequence[Figures]) -> Table:
    """Memory, loading time and settings of each contender."""
    rows = tuple(
        (
            row.name,
            *(f"{size / 1e6:.0f}" if size else "" for size in (row.peak_rss_bytes, row.file_bytes)),
            *(f"{seconds:.2f}" if seconds else "" for seconds in (row.load_s, row.first_answer_s)),
            row.settings,
        )
        for row in contenders(found)
    )
    heads = ("", "peak memory, MB", "files, MB", "loading, s", "first prediction, s", "settings")
    return Table(heads, rows, "Each in its own process; seconds count from its start, imports included.")
