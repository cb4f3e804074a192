"""A comparison as text for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from textwrap import wrap

from stageproof.benchmarks.compare.verdicts import ALPHA, NO_SLOWER, Comparison, Verdict
from stageproof.benchmarks.reports.figures import number

_NAME = 33


def lines(comparison: Comparison, margin: float = NO_SLOWER) -> Iterator[str]:
    """A row for each verdict, by scenario; then how they were computed. margin: as given to `compare`."""
    for scenario, group in groupby(comparison.verdicts, key=lambda one: one.row.scenario):
        yield f"{scenario.replace('_', ' '):<{_NAME}}{'before':>7}{'after':>7}{'change in % [95 %]':>21} verdict"
        for one in group:
            yield from _row(one)
        yield ""
    for note in comparison.notes:
        yield from wrap(note, 80)
    sure = f" In at most {ALPHA:.0%} of pairs of runs of the same code is any row called faster or slower."
    sure += f" No slower: not by {margin:.0%} or more, with 95 % confidence for each row."
    said = "Times are medians in ms; changes are corrected, so they need not be their ratio." + sure
    yield from wrap(said if comparison.controlled else "Times are medians in ms, not corrected.", 80)


def _row(one: Verdict) -> Iterator[str]:
    batch = f", {one.row.batch}" if one.row.scenario == "engine" else ""
    said = f"{one.row.name + batch:<{_NAME}.{_NAME}}{number(one.before_ms):>7}{number(one.after_ms):>7}"
    if one.change is None or one.low is None or one.high is None:
        yield f"{said}{'':>21} {one.judgement}"
        yield f"  {one.why}"
        return
    digits = 1 if one.high < 1 else 0
    change = f"{100 * one.change:+.{digits}f} [{100 * one.low:+.{digits}f}, {100 * one.high:+.{digits}f}]"
    yield f"{said}{change:>21} {one.judgement}"
