"""A record as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.reports.bars import SHADES, cost_of_images, stage_medians, stages
from stageproof.benchmarks.reports.figures import LEAST_FOR, TITLES, Figures, contenders, figures, number
from stageproof.benchmarks.reports.plots import pareto, roofline, strips
from stageproof.benchmarks.reports.sentences import about, circumstances, headline, served, times, with_interval
from stageproof.benchmarks.reports.svg import STYLE
from stageproof.runtime.text.escapes import markup as escape
from stageproof.train.reports.html import document, table

_STYLE = (
    STYLE
    + """
.key svg { display: inline; width: 14px; height: 12px; margin: 0; vertical-align: -1px }
.figures td { white-space: nowrap } .figures th { vertical-align: bottom }
.figures th, .figures td { padding-right: .6rem }
.figures td:nth-child(2) { white-space: normal; min-width: min(14rem, 30vw) }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 1rem; font-size: 14px } dd { margin: 0 }
"""
)
_KEY = """<p class="note key"><svg viewBox="0 0 14 12"><circle class="ours" cx="7" cy="6" r="4"/></svg> Predictor
<svg viewBox="0 0 14 12"><rect class="theirs" x="3" y="2" width="7" height="7"/></svg> peer
<svg viewBox="0 0 14 12"><path class="engine" d="M7 1l4.5 8h-9z"/></svg> engine alone; numbers as in the tables.</p>"""


def page(record: Record) -> str:
    """The HTML text."""
    found = figures(record.rows)
    single = [one for one in found if one.row.scenario == "single_stream"]
    groups = [list(group) for _, group in groupby(found, key=lambda one: one.row.scenario)]
    title = f"Benchmarks of {about(record)}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="headline">{escape(headline(found))}</p>',
        *_warnings(record),
        *_strips(groups[:1]),
        f'<p class="note">{_SAMPLES}</p>' if groups else "",
        _definitions(circumstances(record)),
        *_tables(found),
        "<h2>Every sample of the other scenarios</h2>" if groups[1:] else "",
        *_strips(groups[1:]),
        _section("Changed predictions against latency", pareto(single), _PARETO, key=True),
        _section("Roofline", roofline(found, record), _ROOFLINE, key=True),
        _stages(single),
        _scaling(record),
        _costs(found),
        _method(record),
    ]
    return document(title, parts, "Research use only. Not a medical device.", _STYLE)


_PARETO = (
    "Share of images whose predicted class differs from that of the eager float32 model, against median latency. Lower "
    "and further left is better; no row is both faster and closer to that model than those on the dashed line."
)
_ROOFLINE = (
    "Arithmetic done in a second, against arithmetic for each byte of weights read. Lines: the most that this machine "
    "did in the same run. The bytes are the artifact's, read once a run: activations come on top, so a mark lies "
    "further left in truth. Rows whose file is not known are left out."
)
_ABOVE = (
    "More than 100 % is no error by itself: some convolutions multiply less often than is counted (Winograd), and the "
    "machine may have been used by others while its rate was measured."
)
_SAMPLES = (
    "Each dot is one measurement, from top to bottom in the order they were taken; the line is the median. The axis is "
    "logarithmic. Numbers are those of the tables."
)


def _warnings(record: Record) -> list[str]:
    if not record.machine.get("busy"):
        return []
    return [
        '<p class="warning">This machine was too busy to measure on: others used it. Do not publish these figures.</p>'
    ]


def _definitions(pairs: Sequence[tuple[str, str]]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in pairs)}</dl>"


def _section(title: str, drawing: str, note: str, *, key: bool = False) -> str:
    if not drawing:
        return ""
    return f'<h2>{escape(title)}</h2>{_KEY if key else ""}{drawing}<p class="note">{escape(note)}</p>'


def _tables(found: Sequence[Figures]) -> list[str]:
    heads = [
        "",
        "",
        "ms [95 %]",
        "p90",
        "p99",
        "images/s",
        "times faster [95 %]",
        "of the floor",
        "changed predictions",
        "samples",
    ]
    parts = []
    for scenario, group in groupby(found, key=lambda one: one.row.scenario):
        rows = list(group)
        cells = [[str(one.number), one.title, *_cells(one)] for one in rows]
        kept = [at for at in range(len(heads)) if at < 3 or any(row[at] for row in cells)]
        said = table([heads[at] for at in kept], [[row[at] for at in kept] for row in cells])
        notes = [f'<p class="note">{escape(served(one))}</p>' for one in rows if one.row.server]
        batch = '<p class="note">After the name: images in one batch.</p>' if scenario in ("engine", "offline") else ""
        heading = f"<h2>{escape(scenario.replace('_', ' '))}: {escape(TITLES[scenario])}</h2>"
        parts.append(f'{heading}<div class="figures">{said}</div>{batch}{"".join(notes)}')
    return parts


def _cells(one: Figures) -> list[str]:
    row = one.row
    return [
        with_interval(one.median, one.interval),
        *(number(value) if value else "" for value in (one.p90, one.p99)),
        f"{row.images_per_s:.1f}" if row.images_per_s else "",
        times(one),
        f"{row.floor_share:.0%}" if row.floor_share is not None else "",
        f"{row.flips['count']} of {row.flips['images']}" if row.flips else "",
        f"{len(row.samples_ms)}{'' if row.stable else ', not settled'}",
    ]


def _strips(groups: Sequence[Sequence[Figures]]) -> list[str]:
    """Every sample, a drawing for each scenario."""
    parts = []
    for rows in groups:
        scenario = rows[0].row.scenario
        named = f"<p><b>{escape(scenario.replace('_', ' '))}: {escape(TITLES[scenario])}</b></p>"
        parts.append(named + strips(rows, f"every sample of {scenario.replace('_', ' ')}, milliseconds"))
    return parts


def _stages(single: Sequence[Figures]) -> str:
    rows = [(one, stage_medians(one)) for one in single]
    rows = [(one, medians) for one, medians in rows if medians]
    if not rows:
        return ""
    names = [stage for stage in SHADES if any(stage in medians for _, medians in rows)]
    cells = [
        [f"{one.number}  {one.row.name}", *(f"{medians[stage]:.3f}" if stage in medians else "" for stage in names)]
        for one, medians in rows
    ]
    small = stages(single, without="compute") if "compute" in names else ""
    return (
        f"<h2>Where the time goes</h2>{stages(single)}{small}{table(['median ms', *names], cells)}"
        '<p class="note">Medians of the same answers, with a clock at each stage.</p>'
    )


def _scaling(record: Record) -> str:
    scaling = record.facts.get("scaling") or {}
    parts = []
    if images := scaling.get("images"):
        drawn, departure = cost_of_images(images)
        cells = [
            [
                f"{one['images']:,}",
                f"{one['seconds']:.2f}",
                f"{one['seconds'] / one['images'] * 1e3:.2f}",
                f"{one['rss_bytes'] / 1e6:.0f}",
            ]
            for one in images
        ]
        parts.append(f"{drawn}{table(['images', 'seconds', 'ms each', 'MB held'], cells)}")
        parts.append(
            f'<p class="note">Dashed: the same cost for every image; the largest departure is {departure:.1%}.</p>'
        )
    if workers := scaling.get("workers"):
        first = workers[0]["images_per_s"] / workers[0]["workers"]
        cells = [
            [
                str(one["workers"]),
                f"{one['seconds']:.2f}",
                f"{one['images_per_s']:.1f}",
                f"{one['images_per_s'] / one['workers'] / first:.0%}",
            ]
            for one in workers
        ]
        parts.append(table(["workers", "seconds", "images/s", "of a lone worker's, each"], cells))
    return f"<h2>Cost against work</h2>{''.join(parts)}" if parts else ""


def _costs(found: Sequence[Figures]) -> str:
    cells = [
        [
            row.name,
            *(f"{size / 1e6:.0f}" if size else "" for size in (row.peak_rss_bytes, row.file_bytes)),
            *(f"{seconds:.2f}" if seconds else "" for seconds in (row.load_s, row.first_answer_s)),
            row.settings,
        ]
        for row in contenders(found)
    ]
    heads = ["", "MB at most", "MB of files", "s to load", "s to first answer", "settings"]
    note = "Each in a process of its own; seconds count from its start, imports included."
    return f'<h2>Memory, loading, settings</h2>{table(heads, cells)}<p class="note">{note}</p>' if cells else ""


def _method(record: Record) -> str:
    floors = [f"{name}: {entry['how']}" for name, entry in record.facts["floors"].items() if entry.get("how")]
    floor = (
        f" The floor is the image's arithmetic at the rate measured here, {'; '.join(floors)}. {_ABOVE}"
        if floors
        else ""
    )
    notes = "".join(f"<li>{escape(str(note))}</li>" for note in record.facts.get("notes") or ())
    return (
        "<h2>How it was measured</h2><p>All contenders in turn, each in its own process, so that a drifting machine "
        "drifts for all. Medians; intervals from resamples of blocks of neighbouring rounds. Times faster: the median "
        "over the rounds of the published snippet's time over the contender's. A p90 is given from "
        f"{LEAST_FOR[0.9]} samples on, a p99 from {LEAST_FOR[0.99]}: then 99 of 100 such runs have two samples beyond "
        f"it.{escape(floor)}</p>" + (f"<ul>{notes}</ul>" if notes else "")
    )
