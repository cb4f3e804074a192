"""A record as text for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.reports.figures import LEAST_FOR, TITLES, Figures, contenders, figures
from stageproof.benchmarks.reports.sentences import served, threads
from stageproof.benchmarks.reports.tables import cost_by_images, cost_by_workers
from stageproof.train.reports.terminal import WIDTH, table


def lines(record: Record) -> Iterator[str]:
    """The rows of each scenario, fastest first; then memory and loading of each contender, scaling, and the machine."""
    found = figures(record.rows)
    for (scenario, batch), group in groupby(found, key=lambda one: (one.row.scenario, _batch(one))):
        rows = list(group)
        yield from _table(TITLES[scenario] + (f", {batch}" if batch else ""), rows)
        for one in rows:
            if one.row.server:
                yield from wrap(f"{one.row.name}: {served(one)}", WIDTH, initial_indent="  ", subsequent_indent="    ")
        yield ""
    for made in (_costs(found), *_scaling(record)):
        yield from [*made, ""] if made else []
    yield from _machine(record, found)


def _batch(one: Figures) -> int:
    return one.row.batch if one.row.scenario == "engine" else 0


def _table(title: str, rows: Sequence[Figures]) -> list[str]:
    columns = [
        (title, 0, [one.row.name for one in rows]),
        ("ms", 6, [_short(one.median) for one in rows]),
        ("95 %", 12, [_interval(one) for one in rows]),
        ("p90", 6, [_short(one.p90) if one.p90 else "" for one in rows]),
        ("p99", 6, [_short(one.p99) if one.p99 else "" for one in rows]),
        ("faster", 6, [f"{one.faster:.2f}×" if one.faster else "" for one in rows]),
        ("of peak", 7, [f"{one.row.floor_share:.0%}" if one.row.floor_share is not None else "" for one in rows]),
    ]
    return _columns(columns)


def _columns(columns: Sequence[tuple[str, int, list[str]]]) -> list[str]:
    """A table of the columns (head, characters, cells) that are not empty. All but the first are aligned right, and the
    first takes the remaining width."""
    heads, widths, cells = zip(*(one for one in columns if any(one[2])), strict=True)
    first = WIDTH - sum(widths[1:]) - len(widths[1:])
    return table(heads, list(zip(*cells, strict=True)), (first, *widths[1:]), right=range(1, len(heads)))


def _interval(one: Figures) -> str:
    return "–".join(map(_short, one.interval)) if one.interval else f"of {len(one.row.samples_ms)}"


def _short(milliseconds: float) -> str:
    """At most five characters below 100 s."""
    digits = 3 if milliseconds < 1 else 2 if milliseconds < 100 else 1 if milliseconds < 1000 else 0
    return f"{milliseconds:.{digits}f}"


def _costs(found: Sequence[Figures]) -> list[str]:
    if not (rows := contenders(found)):
        return []
    megabytes = {name: [getattr(row, name) for row in rows] for name in ("peak_rss_bytes", "file_bytes")}
    seconds = {name: [getattr(row, name) for row in rows] for name in ("load_s", "first_answer_s")}
    shown = {name: [f"{size / 1e6:.0f}" if size else "" for size in of] for name, of in megabytes.items()}
    shown |= {name: [f"{time:.2f}" if time else "" for time in of] for name, of in seconds.items()}
    changed = [f"{row.flips['count']}/{row.flips['images']}" if row.flips else "" for row in rows]
    return _columns(
        [
            ("in a separate process", 0, [row.name for row in rows]),
            ("MB peak", 8, shown["peak_rss_bytes"]),
            ("load s", 7, shown["load_s"]),
            ("first s", 8, shown["first_answer_s"]),
            ("MB files", 8, shown["file_bytes"]),
            ("changed", 11, changed),
        ]
    )


def _scaling(record: Record) -> list[list[str]]:
    scaling = record.facts.get("scaling") or {}
    tables = [cost_by_images(scaling.get("images") or ()), cost_by_workers(scaling.get("workers") or ())]
    return [table(one.heads, one.rows, (12, 12, 14, 22), right=range(4)) for one in tables if one.rows]


def _machine(record: Record, found: Sequence[Figures]) -> Iterator[str]:
    machine, floors = record.machine, record.facts["floors"]
    said = [str(machine.get("cpu", "unknown CPU")), threads(record)]
    said += [f"load average {machine['load_average']}"] if machine.get("load_average") is not None else []
    said += [f"noise {machine['noise']:.1%}"] if machine.get("noise") is not None else []
    yield from wrap(", ".join(said), WIDTH)
    rates = [f"{name} {entry['gflop_s']:.0f} GFLOP/s" for name, entry in floors.items() if "gflop_s" in entry]
    if rates:
        work = record.facts["work"].get("gflop_per_image")
        image = f"; an image takes {work:.2f} GFLOP" if work else ""
        yield from wrap(f"peak: {', '.join(rates)}{image}", WIDTH)
    if any(one.row.floor_share is not None for one in found):
        yield "of peak: share of the peak rate of this machine in that precision"
    if any(one.p90 or one.p99 for one in found):
        yield f"p90 from {LEAST_FOR[0.9]} samples, p99 from {LEAST_FOR[0.99]}"
    if machine.get("busy"):
        yield "This machine was too busy to measure on: do not publish these figures."
