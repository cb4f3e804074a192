"""The aims of the service, each with the figures of one run and whether they are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stageproof.benchmarks.reports.figures import LEAST_FOR, Interval, number, tail
from stageproof.benchmarks.serving.analysis.figures import bootstrap, difference, of, ratio
from stageproof.benchmarks.serving.analysis.record import Cell, ServingRecord
from stageproof.benchmarks.serving.servers import OURS, PEERS

OVERHEAD_MS = 1.5
STREAM_SHARE = 0.85
PEER_RATIO = 1.5
TAIL_RATIO = 4.0


@dataclass(frozen=True)
class Verdict:
    """One aim."""

    aim: str
    figure: str
    """What was measured, with its 95 % interval."""
    met: bool | None
    """By the estimate; None if it was not measured."""
    clear: bool = True
    """False if the interval includes the limit: another run may say the opposite."""

    @property
    def word(self) -> str:
        """``pass``, ``fail`` or ``not measured``, and whether the interval includes the limit."""
        if self.met is None:
            return "not measured"
        return ("pass" if self.met else "fail") + ("" if self.clear else " (interval includes the limit)")


def verdicts(record: ServingRecord) -> list[Verdict]:
    """The four aims: latency at one client, throughput beside a stream and beside peers, tail at half load."""
    return [_overhead(record), _stream(record), _peers(record), _tail(record)]


def _overhead(record: ServingRecord) -> Verdict:
    aim = f"1 client: at most {OVERHEAD_MS} ms over the Predictor in process"
    ours, alone = _latencies(record, "1 client"), record.facts["predictor"].get("latencies_ms") or []
    if min(len(ours), len(alone)) < 10:
        return _unmeasured(aim)
    over, within = difference(ours, alone)
    medians = f"{number(float(np.median(ours)))} - {number(float(np.median(alone)))} ms"
    return _judged(
        aim, f"{over:+.2f} ms ({within[0]:+.2f} to {within[1]:+.2f}); medians {medians}", over, within, OVERHEAD_MS
    )


def _stream(record: ServingRecord) -> Verdict:
    aim = f"32 clients: at least {STREAM_SHARE} of the images/s of Predictor.stream"
    ours, stream = _cells(record, OURS, "32 clients"), record.facts["predictor"].get("stream_ms") or []
    if not _answered(ours) or len(stream) < 2:
        return _unmeasured(aim)
    share, within = ratio(_per_round(ours), stream)
    rates = f"{of(ours).per_s:.1f} of {1e3 / float(np.mean(stream)):.1f} images/s"
    return _judged(
        aim, f"{share:.2f} ({within[0]:.2f} to {within[1]:.2f}); {rates}", share, within, STREAM_SHARE, least=True
    )


def _peers(record: ServingRecord) -> Verdict:
    aim = f"32 clients: at least {PEER_RATIO} times the images/s of the fastest peer"
    ours = _cells(record, OURS, "32 clients")
    theirs = {name: _cells(record, name, "32 clients") for name in PEERS}
    rates = {name: of(cells).per_s for name, cells in theirs.items() if _answered(cells)}
    if not _answered(ours) or not rates:
        return _unmeasured(aim)
    best = max(rates, key=rates.__getitem__)
    times, within = ratio(_per_round(ours), _per_round(theirs[best]))
    shown = f"{of(ours).per_s:.1f} beside {rates[best]:.1f} images/s of {record.servers[best]['title']}"
    figure = f"{times:.2f} ({within[0]:.2f} to {within[1]:.2f}); {shown}"
    return _judged(aim, figure, times, within, PEER_RATIO, least=True)


def _tail(record: ServingRecord) -> Verdict:
    aim = f"50 % load: p99 at most {TAIL_RATIO:g} latencies of one image"
    latencies = np.array(_latencies(record, "50 % load"))
    alone = record.facts["predictor"].get("latencies_ms") or []
    p99 = tail(latencies, 0.99)
    if len(alone) < 10:
        return _unmeasured(aim)
    if p99 is None:
        return Verdict(aim, f"{len(latencies)} requests, {LEAST_FOR[0.99]} are needed for a p99", None)
    single = float(np.median(alone))
    low, high = (one / single for one in bootstrap(latencies, 0.99))
    figure = f"{p99 / single:.2f} ({low:.2f} to {high:.2f}); {number(p99)} ms over {number(single)} ms"
    return _judged(aim, figure, p99 / single, (low, high), TAIL_RATIO)


def _judged(aim: str, figure: str, value: float, within: Interval, limit: float, *, least: bool = False) -> Verdict:
    return Verdict(aim, figure, value >= limit if least else value <= limit, not within[0] <= limit <= within[1])


def _unmeasured(aim: str) -> Verdict:
    return Verdict(aim, "", None)


def _cells(record: ServingRecord, server: str, load: str) -> list[Cell]:
    return sorted((one for one in record.cells if (one.server, one.load) == (server, load)), key=lambda one: one.round)


def _latencies(record: ServingRecord, load: str) -> list[float]:
    return [one for cell in _cells(record, OURS, load) for one in cell.latencies_ms]


def _per_round(cells: Sequence[Cell]) -> list[float]:
    """Milliseconds per image of each round: throughput is a mean, also of a server that stalls now and then."""
    return [1e3 * one.seconds / len(one.latencies_ms) for one in cells if one.latencies_ms]


def _answered(cells: Sequence[Cell]) -> bool:
    """Whether there are enough rounds for a throughput."""
    return len(_per_round(cells)) >= 2
