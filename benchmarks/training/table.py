"""Formats the times of the training loops as a text table."""

from __future__ import annotations

from collections.abc import Sequence

from stageproof.benchmarks.training.interleaved_timing import Measured


def table(title: str, measured: Sequence[Measured], baseline: Measured | None) -> list[str]:
    """Lines of the table, at most 80 columns wide, fastest first: median times with 95 % intervals, and speed-ups."""
    lines = [f"{title:<34}{'ms':>8}  {'95 % interval':<16}{'speed-up':>14}"]
    for entry in sorted(measured, key=lambda item: item.median):
        low, high = entry.interval()
        faster = ""
        if baseline is not None and entry is not baseline:
            ratio, least, most = entry.ratio(baseline)
            faster = f"{ratio:.2f} ({least:.2f}–{most:.2f})"
        lines.append(f"{entry.name:<34}{entry.median:>8.2f}  {f'{low:.2f}–{high:.2f}':<16}{faster:>18}")
    return lines
