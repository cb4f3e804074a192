"""Compares two records: a verdict for each common row, faster, slower, no slower, or cannot tell.

Unchanged peers measured in the same rounds serve as controls: their change between the runs is drift of the machine and
is subtracted. Processes of the same code differ randomly; this spread is measured if a run used several processes
(`--processes`), estimated from the changes of the controls if there are enough, and else assumed to be 2 %. Faster and
slower: the change exceeds `MARGIN`, after Holm's correction for the number of rows. No slower: the upper 95 % bound of
the change is below the user's margin (one-sided equivalence test, Schuirmann 1987); not tested without controls, since
drift of the machine could hide a change.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from stageproof.benchmarks.compare.circumstances import (
    Pair,
    changed_circumstances,
    check_work,
    is_unchanged_peer,
    machines_differ,
)
from stageproof.benchmarks.compare.statistics import (
    ASSUMED_SPREAD,
    LEAST_SAMPLES,
    Estimate,
    assumed,
    combined,
    holm,
    interval,
    level,
    p_value_of_change,
    p_value_of_slowdown,
)
from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.records.schema import Row
from stageproof.runtime.errors import InputError

MARGIN = 0.02
"""Relative change that faster and slower must exceed: the memory layout of code alone causes 1 to 2 %."""
ONE_PEER_MARGIN = 0.03
"""The same with a single control, whose own variation cannot be distinguished from drift of the machine."""
UNCONTROLLED_MARGIN = 0.10
"""The same without controls, since drift of the machine is then not subtracted."""
ALPHA = 0.05
"""Family-wise error rate: probability that any row is called faster or slower although nothing changed."""
NO_SLOWER = 0.05
"""Default margin of "no slower"."""
_MIN_CONTROLS = 6
"""Minimum number of controls for estimating the spread between processes from their changes."""

Judgement = Literal["faster", "slower", "no slower", "cannot tell"]


@dataclass(frozen=True)
class Verdict:
    """The comparison of one row between the two runs."""

    row: Row
    """The row of the second run."""
    before_ms: float
    after_ms: float
    change: float | None
    """Relative change of the time, corrected for drift: second / first - 1; None if there is no estimate."""
    low: float | None
    high: float | None
    """95 % confidence interval of the change, without correction for the number of rows."""
    judgement: Judgement
    why: str
    """Reason if there is no estimate, else ""."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of all common rows, in the order of the second run."""

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    """Differences in hardware and versions, the controls, and rows that only one run has."""
    controlled: bool
    """Whether drift of the machine was subtracted; if not, the error rate of the verdicts is unknown."""


def compare(before: Record, after: Record, no_slower: float = NO_SLOWER) -> Comparison:
    """The comparison of `after` with `before`. no_slower: the smallest relative slowdown that "no slower" rules out.

    Raises InputError if the runs have no row in common, or measured different architectures or input sizes.
    """
    check_work(before, after)
    first, second = ({_key(row): row for row in record.rows} for record in (before, after))
    pairs = [(first[key], row) for key, row in second.items() if key in first]
    if not pairs:
        raise InputError(
            f"{before.name} and {after.name} have no row in common: {_names(before.rows)}; {_names(after.rows)}. "
            "Measure the same bundle in the same scenarios."
        )
    changed = changed_circumstances(before, after)
    controls = [] if machines_differ(changed) else [pair for pair in pairs if is_unchanged_peer(pair, changed)]
    estimates: dict[int, tuple[Estimate, float]] = {}
    for at, pair in enumerate(pairs):
        judged = min(len(row.samples_ms) for row in pair) >= LEAST_SAMPLES and not _incomparable(pair)
        if judged and controls != [pair]:
            estimates[at] = _estimate(pair, [other for other in controls if other is not pair])
    adjusted = holm([p_value_of_change(estimate, margin) for estimate, margin in estimates.values()])
    sure = {at: p <= ALPHA for at, p in zip(estimates, adjusted, strict=True)}
    verdicts = tuple(_verdict(pair, estimates.get(at), sure.get(at, False), no_slower) for at, pair in enumerate(pairs))
    only = [(before, set(first) - set(second)), (after, set(second) - set(first))]
    return Comparison(verdicts, tuple(_notes(before, after, changed, controls, only)), bool(controls))


def fails(comparison: Comparison, *, unproven: bool) -> bool:
    """Whether any row is slower; with `unproven`, whether any row except peers is neither faster nor no slower."""
    ours = [one for one in comparison.verdicts if one.row.kind != "peer"]
    if unproven:
        return not ours or any(one.judgement not in ("faster", "no slower") for one in ours)
    return any(one.judgement == "slower" for one in comparison.verdicts)


def _estimate(pair: Pair, controls: Sequence[Pair]) -> tuple[Estimate, float]:
    """(log ratio of the times, corrected for drift; the margin that it must exceed)."""
    own = [np.log(row.samples_ms) for row in pair]
    own_processes = [row.processes for row in pair]
    paired = [other for other in controls if _same_rounds(pair, other)]
    near = paired or [other for other in controls if other[0].scenario == "single_stream"]
    if not near:
        levels = [level(samples, counts) for samples, counts in zip(own, own_processes, strict=True)]
        return combined(levels[1].value - levels[0].value, [*levels, *_assumed_spread(pair)]), UNCONTROLLED_MARGIN
    common = _common(near)
    if paired:
        levels = [
            level(samples - shared, counts) for samples, shared, counts in zip(own, common, own_processes, strict=True)
        ]
        moved = levels[1].value - levels[0].value
    else:
        processes = (*own_processes, *(near[0][run].processes for run in (0, 1)))
        levels = [level(samples, counts) for samples, counts in zip((*own, *common), processes, strict=True)]
        moved = levels[1].value - levels[0].value - (levels[3].value - levels[2].value)
    return combined(moved, [*levels, *_spread(pair, near)]), MARGIN if len(near) > 1 else ONE_PEER_MARGIN


def _common(controls: Sequence[Pair]) -> list[np.ndarray]:
    """Drift of each run: per round, the median over the controls of their log times, relative to each one's level over
    both runs."""
    logs = [[np.log(row.samples_ms) for row in pair] for pair in controls]
    middles = [(np.median(first) + np.median(second)) / 2 for first, second in logs]
    return [
        np.median([pair[run] - middle for pair, middle in zip(logs, middles, strict=True)], axis=0) for run in (0, 1)
    ]


def _assumed_spread(pair: Pair) -> list[Estimate]:
    """The assumed error between processes, for each run of the row that used a single process."""
    return [assumed() for row in pair if not _several(row)]


def _spread(pair: Pair, controls: Sequence[Pair]) -> list[Estimate]:
    """Errors from differences between processes that the samples of the row and its controls do not include.

    Empty if all of them ran in several processes. Otherwise estimated from the changes of the controls between the two
    runs if there are at least `_MIN_CONTROLS`, and assumed if there are fewer.
    """
    if all(_several(row) for one in (pair, *controls) for row in one):
        return []
    if len(controls) < _MIN_CONTROLS:
        several = math.sqrt(1 + 1 / len(controls))
        return [assumed(ASSUMED_SPREAD * several) for _ in (0, 1)]
    moved = [np.median(np.log(after.samples_ms)) - np.median(np.log(before.samples_ms)) for before, after in controls]
    share = math.sqrt(1 + 1 / len(controls))
    return [Estimate(0.0, float(np.std(moved, ddof=1)) * share, len(moved) - 1)]


def _several(row: Row) -> bool:
    return row.processes is not None and len(row.processes) > 1


def _same_rounds(pair: Pair, other: Pair) -> bool:
    """Whether sample i of both rows was measured in the same round, in each run."""
    return pair[0].scenario != "server" and all(
        (one.scenario, len(one.samples_ms), one.processes) == (two.scenario, len(two.samples_ms), two.processes)
        for one, two in zip(pair, other, strict=True)
    )


def _verdict(pair: Pair, found: tuple[Estimate, float] | None, sure: bool, no_slower: float) -> Verdict:
    before, after = (float(np.median(row.samples_ms)) for row in pair)
    if found is None:
        fewest = min(len(row.samples_ms) for row in pair)
        few = f"{fewest} samples, {LEAST_SAMPLES} needed" if fewest < LEAST_SAMPLES else ""
        why = _incomparable(pair) or few or "the only control: no other to compare it with"
        return Verdict(pair[1], before, after, None, None, None, "cannot tell", why)
    estimate, margin = found
    low, high = interval(estimate)
    judgement: Judgement = "cannot tell"
    if sure:
        judgement = "slower" if estimate.value > 0 else "faster"
    elif margin < UNCONTROLLED_MARGIN and p_value_of_slowdown(estimate, math.log1p(no_slower)) <= ALPHA:
        judgement = "no slower"
    change, least, most = (math.expm1(value) for value in (estimate.value, low, high))
    return Verdict(pair[1], before, after, change, least, most, judgement, "")


def _incomparable(pair: Pair) -> str:
    """Why two rows of the same name cannot be compared; "" if they can."""
    rates = [row.server["offered_per_s"] for row in pair if row.server]
    if len(rates) == 2 and abs(rates[1] / rates[0] - 1) > 0.01:
        return f"offered {rates[0]:.1f}/s and {rates[1]:.1f}/s"
    return ""


def _key(row: Row) -> tuple[str, str, str, str, int, int]:
    return row.scenario, row.name, row.backend, row.precision, row.batch if row.scenario == "engine" else 0, row.threads


def _names(rows: Iterable[Row]) -> str:
    names = [f"{row.name} ({row.scenario})" for row in rows]
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")


def _notes(
    before: Record,
    after: Record,
    changed: Mapping[str, tuple[object, object]],
    controls: Sequence[Pair],
    only: Sequence[tuple[Record, set[tuple[str, str, str, str, int, int]]]],
) -> list[str]:
    commits = [record.facts.get("commit") for record in (before, after)]
    notes = [f"commit: {commits[0]} before, {commits[1]} after"] if any(commits) else []
    notes += [f"{what}: {old} before, {new} after" for what, (old, new) in changed.items()]
    sources = [(record.facts.get("images") or {}).get("source") for record in (before, after)]
    if sources[0] != sources[1]:
        notes.append(f"images: {sources[0]} before, {sources[1]} after")
    busy = [record.name for record in (before, after) if record.machine.get("busy")]
    notes += [f"{name} was measured on a busy machine" for name in busy]
    if machines_differ(changed):
        notes.append(
            "Two machines: differences may be due to machine or code, so only changes beyond "
            f"±{UNCONTROLLED_MARGIN:.0%} are reported."
        )
    elif controls:
        names = sorted({pair[1].name for pair in controls})
        notes.append(f"Corrected for drift of the machine with unchanged peers: {', '.join(names)}.")
    else:
        notes.append(
            f"No peer was measured in both runs unchanged, so drift of the machine is not subtracted and only changes "
            f"beyond ±{UNCONTROLLED_MARGIN:.0%} are reported. Measure both runs with peers."
        )
    rows = [row for record in (before, after) for row in record.rows]
    if not all(_several(row) for row in rows) and len(controls) < _MIN_CONTROLS:
        notes.append(
            f"One process each: processes of the same code are assumed to differ by {ASSUMED_SPREAD:.0%}. Measure both "
            "runs with --processes 5 for narrower intervals."
        )
    notes += [f"only in {record.name}: {', '.join(sorted(key[1] for key in keys))}" for record, keys in only if keys]
    return notes
