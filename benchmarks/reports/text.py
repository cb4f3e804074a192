"""A record → lines for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.reports.figures import LEAST_FOR, TITLES, Figures, contenders, figures
from stageproof.benchmarks.reports.sentences import served, threads

_NAME = 33


def lines(record: Record) -> Iterator[str]:
    """Each scenario's rows, fastest first, then what else each contender costs, then the machine."""
    found = figures(record.rows)
    for (scenario, batch), group in groupby(found, key=lambda one: (one.row.scenario, _batch(one))):
        yield from _table(TITLES[scenario] + (f", {batch}" if batch else ""), list(group))
        yield ""
    yield from _costs(found)
    yield from _scaling(record)
    yield from _machine(record, found)


def _batch(one: Figures) -> int:
    return one.row.batch if one.row.scenario == "engine" else 0


def _table(title: str, rows: Sequence[Figures]) -> Iterator[str]:
    tails = any(one.p90 or one.p99 for one in rows)
    heads = (f"{'p90':>7}{'p99':>7}" if tails else "") + f"{'faster':>7}{'floor':>6}"
    yield f"{title:<{_NAME}}{'ms':>7}{'95 %':>13}{heads}".rstrip()
    for one in rows:
        between = "–".join(map(_short, one.interval)) if one.interval else f"of {len(one.row.samples_ms)}"
        said = f"{one.row.name[:_NAME]:<{_NAME}}{_short(one.median):>7}{between:>13}"
        if tails:
            said += "".join(f"{_short(value) if value else '':>7}" for value in (one.p90, one.p99))
        faster = f"{one.faster:.2f}×" if one.faster else ""
        share = f"{one.row.floor_share:.0%}" if one.row.floor_share is not None else ""
        yield f"{said}{faster:>7}{share:>6}".rstrip()
        if one.row.server:
            yield f"  {served(one)}"


def _short(milliseconds: float) -> str:
    """At most five characters below 100 s."""
    digits = 3 if milliseconds < 1 else 2 if milliseconds < 100 else 1 if milliseconds < 1000 else 0
    return f"{milliseconds:.{digits}f}"


def _costs(found: Sequence[Figures]) -> Iterator[str]:
    rows = contenders(found)
    if not rows:
        return
    yield f"{'in a process of its own':<{_NAME}}{'MB peak':>10}{'load s':>8}{'first s':>9}{'file MB':>9}{'changed':>11}"
    for row in rows:
        peak, file = (f"{size / 1e6:.0f}" if size else "" for size in (row.peak_rss_bytes, row.file_bytes))
        load, first = (f"{seconds:.2f}" if seconds else "" for seconds in (row.load_s, row.first_answer_s))
        flips = f"{row.flips['count']}/{row.flips['images']}" if row.flips else ""
        yield f"{row.name[:_NAME]:<{_NAME}}{peak:>10}{load:>8}{first:>9}{file:>9}{flips:>11}".rstrip()
    yield ""


def _scaling(record: Record) -> Iterator[str]:
    scaling = record.facts.get("scaling") or {}
    for entry in scaling.get("images", ()):
        each = entry["seconds"] / entry["images"] * 1e3
        held = entry["rss_bytes"] / 1e6
        yield f"{entry['images']:>9,} images {entry['seconds']:>9.2f} s {each:>9.2f} ms each {held:>9.0f} MB"
    for entry in scaling.get("workers", ()):
        yield f"{entry['workers']:>9} workers {entry['seconds']:>8.2f} s {entry['images_per_s']:>9.1f} images/s"
    if scaling:
        yield ""


def _machine(record: Record, found: Sequence[Figures]) -> Iterator[str]:
    machine, floors = record.machine, record.facts["floors"]
    said = [str(machine.get("cpu", "unknown CPU")), threads(record)]
    said += [f"load average {machine['load_average']}"] if machine.get("load_average") is not None else []
    said += [f"noise {machine['noise']:.1%}"] if machine.get("noise") is not None else []
    yield from wrap(", ".join(said), 80)
    rates = [f"{name} {entry['gflop_s']:.0f} GFLOP/s" for name, entry in floors.items() if "gflop_s" in entry]
    if rates:
        image = f"; an image is {record.facts['work'].get('gflop_per_image', 0):.2f} GFLOP"
        yield from wrap(f"floor: at most {', '.join(rates)}{image}", 80)
    if any(one.p90 or one.p99 for one in found):
        yield from wrap(f"p90 from {LEAST_FOR[0.9]} samples on, p99 from {LEAST_FOR[0.99]}", 80)
    if machine.get("busy"):
        yield "This machine was too busy to measure on: do not publish these figures."
