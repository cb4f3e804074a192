"""Drawings of rows: every latency sample, changed predictions against latency, and the roofline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.reports.figures import Figures, number
from stageproof.benchmarks.reports.svg import WIDTH, Scale, across, around, box_of, numbered, path, svg, text, upwards

_LEFT, _RIGHT = 46, WIDTH - 14
_PITCH = 51
"""From strip to strip: the title, a gap below its descenders, and the samples."""


def strips(found: Sequence[Figures], title: str) -> str:
    """A strip for each row, on one scale: every sample, the first taken at the top, and the median as a line."""
    scale = around((sample for one in found for sample in one.row.samples_ms), 10, _RIGHT)
    parts = []
    for at, one in enumerate(found):
        top = 8 + _PITCH * at
        parts.append(text(10, top + 10, f"{one.number}. {one.title}: {number(one.median)} ms"))
        parts.append(path(f"M10 {top + _PITCH - 4:.1f}H{_RIGHT}", "grid"))
        parts.append(path(_dots(np.array(one.row.samples_ms), scale, top + 18, top + 42), "dots"))
        parts.append(path(f"M{scale(one.median):.1f} {top + 16}v28", "line"))
    bottom = 8 + _PITCH * len(found)
    return svg(bottom + 40, [*across(scale, 8, bottom, "milliseconds"), *parts], title)


def _dots(samples: np.ndarray, scale: Scale, top: float, bottom: float) -> str:
    """Path of a dot for each sample. Those that would fall on the same half unit are one dot."""
    down = np.linspace(top, bottom, len(samples))
    places = {(round(scale(sample) * 2) / 2, round(y * 2) / 2) for sample, y in zip(samples, down, strict=True)}
    return "".join(f"M{x:g} {y:g}h0" for x, y in sorted(places))


def pareto(found: Sequence[Figures]) -> str:
    """Share of changed predictions against latency, lower left is better; nothing where none was counted."""
    counted = [one for one in found if one.row.flips]
    if not counted:
        return ""
    shares = [100 * one.row.flips["count"] / one.row.flips["images"] for one in counted if one.row.flips]
    bottom = 260
    x = around((one.median for one in counted), _LEFT, _RIGHT)
    y = Scale(0, max(1.0, *shares) * 1.15, bottom - 12, 26, logarithmic=False)
    best, line = float("inf"), ""
    for one, share in sorted(zip(counted, shares, strict=True), key=lambda pair: (pair[0].median, pair[1])):
        if share < best:
            line += f"M{x(one.median):.1f} {y(share):.1f}" if not line else f"H{x(one.median):.1f}V{y(share):.1f}"
            best = share
    points = [(x(one.median), y(share), one.row.kind, one.number) for one, share in zip(counted, shares, strict=True)]
    parts = [
        *across(x, 20, bottom, "median latency of one image, milliseconds"),
        *upwards(y, _LEFT, _RIGHT, "images whose prediction changed", " %"),
    ]
    parts += [path(f"{line}H{_RIGHT}", "line", dashed=True), *numbered(points, _RIGHT, bottom)]
    return svg(bottom + 40, parts, "changed predictions against latency")


def roofline(found: Sequence[Figures], record: Record) -> str:
    """Arithmetic done a second against arithmetic for each byte of weights, under what the machine can do at most.

    Williams et al. 2009; the bytes are those of the artifact, read once a run: the least that must be moved. Nothing
    where ceilings, work or file sizes were not measured.
    """
    floors, gflop = record.facts["floors"], record.facts["work"].get("gflop_per_image")
    rates = {name: entry["gflop_s"] for name, entry in floors.items() if "gflop_s" in entry}
    points = [one for one in found if one.row.file_bytes and one.row.images_per_s]
    if not (rates and gflop and "memory" in floors and points):
        return ""
    moved = floors["memory"]["gb_s"]
    places = [
        (gflop * 1e9 * one.row.batch / float(one.row.file_bytes or 1), gflop * one.row.images_per_s) for one in points
    ]
    bottom = 300
    x = around(
        [*(place[0] for place in places), min(rates.values()) / moved, max(rates.values()) / moved], _LEFT, _RIGHT
    )
    y = around([*(place[1] for place in places), *rates.values()], bottom - 6, 30)
    parts = [*across(x, 26, bottom, "FLOP for each byte of the artifact"), *upwards(y, _LEFT, _RIGHT, "GFLOP/s")]
    ceilings = []
    for name, rate in sorted(rates.items(), key=lambda pair: pair[1]):
        ridge = x(max(rate / moved, x.low))
        parts.append(path(f"M{ridge:.1f} {y(rate):.1f}H{_RIGHT}", "line"))
        side = ("start", 14) if ridge < _RIGHT - 90 else ("end", -4)
        ceilings.append((ridge + side[1], y(rate) - 4, f"{name} {rate:.0f}", side[0]))
    start, end = max(x.low, y.low / moved), max(rates.values()) / moved
    parts.append(path(f"M{x(start):.1f} {y(start * moved):.1f}L{x(end):.1f} {y(end * moved):.1f}", "line"))
    marks = [(x(place[0]), y(place[1]), one.row.kind, one.number) for one, place in zip(points, places, strict=True)]
    parts += numbered(marks, _RIGHT, bottom, [box_of(*ceiling) for ceiling in ceilings])
    return svg(bottom + 40, [*parts, *(text(*ceiling) for ceiling in ceilings)], "roofline")
