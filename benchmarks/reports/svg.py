"""Drawings as SVG text inside a page: scales with ticks, marks that differ by shape, labels that keep apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stageproof.runtime.text.escapes import markup as escape

WIDTH = 420
"""Units of every drawing's width: it fills a telephone and stops growing at 560 px, so text stays readable on both."""
_DIGIT = 8.0  # units: DejaVu Sans, which many systems show, is wider than the other usual fonts
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""
STYLE = """
svg { width: 100%; max-width: 560px; height: auto; display: block; margin: 1rem 0; overflow: visible;
  font: 12.5px system-ui, sans-serif }
svg text { fill: #222; paint-order: stroke; stroke: #fff; stroke-width: 3px }
svg .grid { stroke: #ddd; fill: none } svg .line { stroke: #222; fill: none }
svg .dots { stroke: #1f5fa8; stroke-width: 1.6; stroke-linecap: round; fill: none }
svg .ours { fill: #1f5fa8; stroke: #1f5fa8 } svg .theirs { fill: #fff; stroke: #b3541e; stroke-width: 1.6 }
svg .engine { fill: #fff; stroke: #1f5fa8; stroke-width: 1.6 } svg .soft { fill: #555 }
svg .lead { stroke: #888; stroke-width: .8; fill: none }
"""


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` on units from `start` to `end`; logarithmic, or from 0."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = True

    def __call__(self, value: float) -> float:
        """Where a value lies."""
        if self.logarithmic:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 7) -> list[float]:
        """Round numbers within the scale."""
        if self.logarithmic and self.high > 3 * self.low:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
                found = [step * 10.0**power for power in powers for step in steps]
                found = [value for value in found if self.low <= value <= self.high]
                if len(found) <= most:
                    return found
            return found[:: -(-len(found) // most)]
        rough = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        return [at * step for at in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def around(values: Iterable[float], start: float, end: float, share: float = 0.06) -> Scale:
    """A logarithmic scale that holds all values, with some room on both sides."""
    found = list(values)
    low, high = min(found), max(found)
    room = max((high / low) ** share, 1.05)
    return Scale(low / room, high * room, start, end)


def svg(height: float, parts: Sequence[str], title: str) -> str:
    """title: plain text, for those who do not see the drawing."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def text(x: float, y: float, content: str, anchor: str = "start", style: str = "") -> str:
    """content: plain text."""
    kind = f' class="{style}"' if style else ""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{side}{kind}>{escape(content)}</text>'


def path(commands: str, style: str, dashed: bool = False) -> str:
    """style: a class of `STYLE`."""
    return f'<path class="{style}" d="{commands}"{" stroke-dasharray=" + chr(34) + "4 3" + chr(34) if dashed else ""}/>'


def across(scale: Scale, top: float, bottom: float, label: str) -> list[str]:
    """Upright grid lines with their numbers below, and what the numbers are."""
    parts = []
    for tick in scale.ticks():
        x = scale(tick)
        parts += [path(f"M{x:.1f} {top:.1f}V{bottom:.1f}", "grid"), text(x, bottom + 14, f"{tick:g}", "middle")]
    return [*parts, text((scale.start + scale.end) / 2, bottom + 30, label, "middle", "soft")]


def upwards(scale: Scale, left: float, right: float, label: str, unit: str = "") -> list[str]:
    """Level grid lines with their numbers at the left, and what the numbers are above them."""
    parts = []
    for tick in scale.ticks(6):
        y = scale(tick)
        parts += [path(f"M{left:.1f} {y:.1f}H{right:.1f}", "grid"), text(left - 5, y + 4, f"{tick:g}{unit}", "end")]
    return [*parts, text(4, min(scale.start, scale.end) - 10, label, style="soft")]


def mark(x: float, y: float, kind: str) -> str:
    """A disc for a predictor, a square for a peer, a triangle for an engine alone."""
    if kind == "predictor":
        return f'<circle class="ours" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    if kind == "peer":
        return f'<rect class="theirs" x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"/>'
    return f'<path class="engine" d="M{x:.1f} {y - 4.5:.1f}l4.5 8h-9z"/>'


def box_of(x: float, y: float, content: str, anchor: str = "start") -> Box:
    """What `text` covers with the same arguments, in the widest of the usual fonts: (left, top, right, bottom)."""
    width = _DIGIT * len(content)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - 10, left + width, y + 2


def numbered(
    points: Sequence[tuple[float, float, str, int]], right: float, bottom: float, taken: Sequence[Box] = ()
) -> list[str]:
    """Marks with their numbers beside them, each where it covers nothing else, joined to its mark where that is far.

    points: (x, y, kind, number). taken: where no number may lie, beside the marks themselves.
    """
    full = [*taken, *((x - 5, y - 5, x + 5, y + 5) for x, y, _, _ in points)]
    leaders, marks, numbers = [], [mark(x, y, kind) for x, y, kind, _ in points], []
    for x, y, _, number in points:
        box = _free(x, y, str(number), full, right, bottom)
        full.append(box)
        if not (box[1] - 12 <= y <= box[3] + 12 and box[0] - 12 <= x <= box[2] + 12):
            leaders.append(
                path(f"M{x:.1f} {y:.1f}L{min(max(x, box[0]), box[2]):.1f} {(box[1] + box[3]) / 2:.1f}", "lead")
            )
        numbers.append(text(box[0], box[3] - 2, str(number)))
    return [*leaders, *marks, *numbers]


def _free(x: float, y: float, number: str, full: Sequence[Box], right: float, bottom: float) -> Box:
    """The nearest place for a number that covers nothing of `full`; if there is none, the one that covers least."""
    width = _DIGIT * len(number)
    places = []
    for down in range(-120, 121, 4):
        for across_by in (7, -7 - width, -width / 2, *range(-90, 91, 10)):
            left, base = x + across_by, y + 4 + down
            box = (left, base - 10, left + width, base + 2)
            if left > 34 and box[2] < right and box[1] > 2 and box[3] < bottom:
                far = math.hypot(max(left - x, x - box[2], 0), base - 4 - y)
                apart = (box[0] - 2, box[1], box[2] + 2, box[3])
                places.append((sum(_overlap(apart, other) for other in full), far, box))
    return min(places)[2] if places else (x + 7, y - 6, x + 7 + width, y + 6)


def _overlap(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
