"""Drawings of costs: where a prediction's time goes, and what more images and more workers cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stageproof.benchmarks.reports.figures import Figures, number
from stageproof.benchmarks.reports.svg import WIDTH, Scale, across, around, path, svg, text, upwards

_RIGHT = WIDTH - 14
_IN_A_ROW = 3  # entries of the legend
SHADES = {
    "read": "#111",
    "guard": "#fff",
    "preprocess": "#777",
    "transfer": "#ccc",
    "compute": "url(#hatched)",
    "post": "#444",
}
_HATCHED = (
    '<defs><pattern id="hatched" width="5" height="5" patternUnits="userSpaceOnUse">'
    '<rect width="5" height="5" fill="#fff"/><path d="M0 5L5 0" stroke="#222"/></pattern></defs>'
)


def stage_medians(one: Figures) -> dict[str, float]:
    """Milliseconds by stage, in the order in which they happen."""
    found = one.row.stages_ms or {}
    return {stage: float(np.median(found[stage])) for stage in SHADES if found.get(stage)}


def stages(found: Sequence[Figures], without: str | None = None) -> str:
    """A stacked bar for each row that has stages; `without` one of them, so that the small ones can be seen."""
    rows = [(one, stage_medians(one)) for one in found]
    rows = [(one, {stage: ms for stage, ms in parts.items() if stage != without}) for one, parts in rows if parts]
    if not rows:
        return ""
    # A subtraction of two clocks may come out below zero by some nanoseconds.
    most = max(sum(max(0.0, ms) for ms in parts.values()) for _, parts in rows)
    scale, drawn = Scale(0, most * 1.02, 10, _RIGHT, logarithmic=False), [_HATCHED]
    shown = [stage for stage in SHADES if any(stage in parts for _, parts in rows)]
    start = 18 * -(-len(shown) // _IN_A_ROW) + 16
    bottom = start + 44 * len(rows)
    drawn += across(scale, start - 4, bottom, "milliseconds" + (f", all but {without}" if without else ""))
    for at, stage in enumerate(shown):
        x, y = 4.0 + _RIGHT / _IN_A_ROW * (at % _IN_A_ROW), 6 + 18 * (at // _IN_A_ROW)
        drawn += [_box(x, y, 12, 12, stage), text(x + 17, y + 10, stage)]
    for at, (one, parts) in enumerate(rows):
        top, spent = start + 6 + 44 * at, 0.0
        drawn.append(text(10, top + 10, f"{one.number}. {one.title}: {number(sum(parts.values()))} ms"))
        for stage, ms in parts.items():
            left = scale(spent)
            spent += max(0.0, ms)
            drawn.append(_box(left, top + 15, scale(spent) - left, 16, stage))
    return svg(bottom + 40, drawn, "milliseconds of each stage")


def _box(x: float, y: float, width: float, height: float, stage: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height}" fill="{SHADES[stage]}" '
        'stroke="#222" stroke-width=".7"/>'
    )


def cost_of_images(entries: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    """Seconds against images with the straight line of the same cost for each, and the largest departure from it."""
    images, seconds = (np.array([entry[key] for entry in entries], float) for key in ("images", "seconds"))
    each = float(np.exp(np.median(np.log(seconds / images))))
    bottom = 230
    x, y = around(images, 46, _RIGHT), around([*seconds, *(each * images)], bottom - 6, 26)
    ends = x.low, x.high
    line = "L".join(f"{x(end):.1f} {max(20.0, min(bottom, y(each * end))):.1f}" for end in ends)
    parts = [
        *across(x, 20, bottom, "images"),
        *upwards(y, 46, _RIGHT, "seconds"),
        path(f"M{line}", "line", dashed=True),
    ]
    for count, spent in zip(images, seconds, strict=True):
        parts.append(f'<circle class="ours" cx="{x(count):.1f}" cy="{y(spent):.1f}" r="4"/>')
    drawn = svg(bottom + 40, parts, "seconds against images")
    return drawn, float(np.abs(seconds / (each * images) - 1).max())
