"""Two records → a verdict for each row that both have: faster, slower, no slower, cannot tell.

A row is compared with the peers measured in the same rounds, which nobody changed: what moved them from one run to the
other was the machine, and is subtracted. Processes of the same code differ by chance; that spread is measured where a
run used several processes (`--processes`), estimated from the peers' own changes where there are enough of them, and
assumed to be 2 % otherwise. Faster and slower: the change exceeds `MARGIN`, after Holm's correction for the number of
rows. No slower: the upper 95 % bound of the change lies below a margin that the user names (a one-sided equivalence
test, Schuirmann 1987); without a peer it is not judged, since the machine's own drift may hide a change.
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
    machines_differ,
    untouched,
)
from stageproof.benchmarks.compare.statistics import (
    ASSUMED_SPREAD,
    LEAST_SAMPLES,
    Estimate,
    assumed,
    below,
    beyond,
    combined,
    holm,
    interval,
    level,
)
from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.records.schema import Row
from stageproof.runtime.errors import InputError

MARGIN = 0.02
"""Changes up to this share count as none: where code lies in memory alone is worth a per cent or two."""
ONE_PEER_MARGIN = 0.03
"""The same where one peer alone serves as control, whose own wanderings nothing can tell from the machine's."""
LONE_MARGIN = 0.10
"""The same where no control was measured in both runs, so that the machine's own drift stays in the figures."""
ALPHA = 0.05
"""Runs in which any row may be called faster or slower although nothing changed."""
NO_SLOWER = 0.05
"""The margin of "no slower", unless the user names another."""
_ENOUGH = 6
"""Peers from which their own changes between two runs estimate the spread between processes."""

Judgement = Literal["faster", "slower", "no slower", "cannot tell"]


@dataclass(frozen=True)
class Verdict:
    """What became of one row from the first run to the second."""

    row: Row
    """As the second run has it."""
    before_ms: float
    after_ms: float
    change: float | None
    """Time of the second run over that of the first, less 1, after the correction; None with too few samples."""
    low: float | None
    high: float | None
    """95 % interval of the change, of this row alone."""
    judgement: Judgement
    why: str
    """Where nothing was judged: the reason."""


@dataclass(frozen=True)
class Comparison:
    """All rows that both runs have, in the order of the second."""

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...]
    """How the circumstances differ, what served as control, which rows only one of them has."""
    controlled: bool
    """Whether the machine's own drift could be taken out; without that, verdicts carry no rate of error."""


def compare(before: Record, after: Record, no_slower: float = NO_SLOWER) -> Comparison:
    """The verdicts on the second run. no_slower: the slowdown, as a share, that "no slower" excludes.

    Raises InputError where the runs have no row in common, or did different work.
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
    controls = [] if machines_differ(changed) else [pair for pair in pairs if untouched(pair, changed)]
    estimates: dict[int, tuple[Estimate, float]] = {}
    for at, pair in enumerate(pairs):
        judged = min(len(row.samples_ms) for row in pair) >= LEAST_SAMPLES and not _incomparable(pair)
        if judged and controls != [pair]:
            estimates[at] = _estimate(pair, [other for other in controls if other is not pair])
    adjusted = holm([beyond(estimate, margin) for estimate, margin in estimates.values()])
    sure = {at: p <= ALPHA for at, p in zip(estimates, adjusted, strict=True)}
    verdicts = tuple(_verdict(pair, estimates.get(at), sure.get(at, False), no_slower) for at, pair in enumerate(pairs))
    only = [(before, set(first) - set(second)), (after, set(second) - set(first))]
    return Comparison(verdicts, tuple(_notes(before, after, changed, controls, only)), bool(controls))


def fails(comparison: Comparison, *, unproven: bool) -> bool:
    """Whether a row is slower; with `unproven`, whether a row that is no peer's is neither faster nor no slower."""
    ours = [one for one in comparison.verdicts if one.row.kind != "peer"]
    if unproven:
        return not ours or any(one.judgement not in ("faster", "no slower") for one in ours)
    return any(one.judgement == "slower" for one in comparison.verdicts)


def _estimate(pair: Pair, controls: Sequence[Pair]) -> tuple[Estimate, float]:
    """The logarithm of time after over time before, less the machine's own, and the margin it must exceed."""
    own = [np.log(row.samples_ms) for row in pair]
    mine = [row.processes for row in pair]
    paired = [other for other in controls if _same_rounds(pair, other)]
    near = paired or [other for other in controls if other[0].scenario == "single_stream"]
    if not near:
        levels = [level(samples, counts) for samples, counts in zip(own, mine, strict=True)]
        return combined(levels[1].value - levels[0].value, [*levels, *_unmeasured(pair)]), LONE_MARGIN
    common = _common(near)
    if paired:
        levels = [level(samples - shared, counts) for samples, shared, counts in zip(own, common, mine, strict=True)]
        moved = levels[1].value - levels[0].value
    else:
        theirs = [near[0][run].processes for run in (0, 1)]
        levels = [level(samples, counts) for samples, counts in zip((*own, *common), (*mine, *theirs), strict=True)]
        moved = levels[1].value - levels[0].value - (levels[3].value - levels[2].value)
    return combined(moved, [*levels, *_spread(pair, near)]), MARGIN if len(near) > 1 else ONE_PEER_MARGIN


def _common(controls: Sequence[Pair]) -> list[np.ndarray]:
    """Of each run: the median over the controls of their times in each round, as logarithms, relative to their level
    over both runs."""
    logs = [[np.log(row.samples_ms) for row in pair] for pair in controls]
    middles = [(np.median(first) + np.median(second)) / 2 for first, second in logs]
    return [
        np.median([pair[run] - middle for pair, middle in zip(logs, middles, strict=True)], axis=0) for run in (0, 1)
    ]


def _unmeasured(pair: Pair) -> list[Estimate]:
    """The assumed spread of each run of the row that was measured in a single process."""
    return [assumed() for row in pair if not _several(row)]


def _spread(pair: Pair, controls: Sequence[Pair]) -> list[Estimate]:
    """The spread between processes that the samples of the row and its controls do not show.

    Nothing where all of them ran in several processes. Otherwise the controls' own changes between the two runs
    estimate it where they are `_ENOUGH`; fewer say too little, and it is assumed.
    """
    if all(_several(row) for one in (pair, *controls) for row in one):
        return []
    if len(controls) < _ENOUGH:
        several = math.sqrt(1 + 1 / len(controls))
        return [assumed(ASSUMED_SPREAD * several) for _ in (0, 1)]
    moved = [np.median(np.log(after.samples_ms)) - np.median(np.log(before.samples_ms)) for before, after in controls]
    share = math.sqrt(1 + 1 / len(controls))
    return [Estimate(0.0, float(np.std(moved, ddof=1)) * share, len(moved) - 1)]


def _several(row: Row) -> bool:
    return row.processes is not None and len(row.processes) > 1


def _same_rounds(pair: Pair, other: Pair) -> bool:
    """Whether sample i of both was taken in the same round, in either run."""
    return pair[0].scenario != "server" and all(
        (mine.scenario, len(mine.samples_ms), mine.processes) == (its.scenario, len(its.samples_ms), its.processes)
        for mine, its in zip(pair, other, strict=True)
    )


def _verdict(pair: Pair, found: tuple[Estimate, float] | None, sure: bool, no_slower: float) -> Verdict:
    before, after = (float(np.median(row.samples_ms)) for row in pair)
    if found is None:
        fewest = min(len(row.samples_ms) for row in pair)
        few = f"{fewest} samples, {LEAST_SAMPLES} needed" if fewest < LEAST_SAMPLES else ""
        why = _incomparable(pair) or few or "the only control: nothing to hold it against"
        return Verdict(pair[1], before, after, None, None, None, "cannot tell", why)
    estimate, margin = found
    low, high = interval(estimate)
    judgement: Judgement = "cannot tell"
    if sure:
        judgement = "slower" if estimate.value > 0 else "faster"
    elif margin < LONE_MARGIN and below(estimate, math.log1p(no_slower)) <= ALPHA:
        judgement = "no slower"
    change, least, most = (math.expm1(value) for value in (estimate.value, low, high))
    return Verdict(pair[1], before, after, change, least, most, judgement, "")


def _incomparable(pair: Pair) -> str:
    """Why two rows of the same name did not do the same, or nothing."""
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
    notes += [f"{record.name} was taken on a busy machine" for record in (before, after) if record.machine.get("busy")]
    if machines_differ(changed):
        notes.append(
            f"Two machines: the verdicts are of machine and code together, and beyond ±{LONE_MARGIN:.0%} only."
        )
    elif controls:
        names = sorted({pair[1].name for pair in controls})
        notes.append(f"Corrected by what the peers did in both runs: {', '.join(names)}.")
    else:
        notes.append(
            f"No peer was measured in both runs as it is: what the machine itself did between them stays in the "
            f"figures, so only changes beyond ±{LONE_MARGIN:.0%} are told. Measure both with peers."
        )
    rows = [row for record in (before, after) for row in record.rows]
    if not all(_several(row) for row in rows) and len(controls) < _ENOUGH:
        notes.append(
            f"One process each: processes of the same code are assumed to differ by {ASSUMED_SPREAD:.0%}. Measure both "
            "with --processes 5 for narrower intervals."
        )
    notes += [f"only in {record.name}: {', '.join(sorted(key[1] for key in keys))}" for record, keys in only if keys]
    return notes
