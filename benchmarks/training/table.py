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
            faster = f"{_short(ratio)} ({_short(least)}–{_short(most)})"
        lines.append(f"{entry.name:<34}{_short(entry.median):>8}  {f'{_short(low)}–{_short(high)}':<16}{faster:>18}")
    return lines


def _short(value: float) -> str:
    """Two decimals; three digits and an exponent where the interval of few samples on a busy machine is huge."""
    return f"{value:.2f}" if value < 1000 else f"{value:.2e}"
