"""Two records → a verdict for each row that both have: faster, slower, cannot tell.

A row is held against what nobody changed: the peers that were asked in the same rounds. What moved them from one run to
the other moved the machine, and is taken out; how far they moved apart shows what untouched code does between runs, and
no verdict rests on less. Beyond that a change must exceed `MARGIN`, in blocks of rounds (`compare_statistics`), after
Holm's correction for the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.compare_statistics import LEAST_SAMPLES, Estimate, beyond, combined, holm, interval, level
from benchmarks.record import Row
from benchmarks.report_reading import Record
from runtime.errors import InputError

MARGIN = 0.02
"""Changes up to this share count as none: where code lies in memory alone is worth a per cent or two."""
ONE_PEER_MARGIN = 0.03
"""The same where one peer alone serves as control, whose own wanderings nothing can tell from the machine's."""
LONE_MARGIN = 0.10
"""The same where no control was measured in both runs, so that the machine's own drift stays in the figures."""
ALPHA = 0.05
"""Runs in which any row may be called faster or slower although nothing changed."""
_USUAL, _WEIGHT = 0.005, 8
"""What two runs of the same code differ by beside all that they share, as a share; how many controls that is worth."""

Judgement = Literal["faster", "slower", "cannot tell"]


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


Pair = tuple[Row, Row]


def compare(before: Record, after: Record) -> Comparison:
    """Raises InputError where the runs have no row in common, or did different work."""
    _check_work(before, after)
    first, second = ({_key(row): row for row in record.rows} for record in (before, after))
    pairs = [(first[key], row) for key, row in second.items() if key in first]
    if not pairs:
        raise InputError(
            f"{before.name} and {after.name} have no row in common: {_names(before.rows)}; {_names(after.rows)}. "
            "Measure the same bundle in the same scenarios."
        )
    changed = _changed(before, after)
    controls = [] if _machines_differ(changed) else [pair for pair in pairs if _untouched(pair, changed)]
    estimates: dict[int, tuple[Estimate, float]] = {}
    for at, pair in enumerate(pairs):
        judged = min(len(row.samples_ms) for row in pair) >= LEAST_SAMPLES and not _incomparable(pair)
        if judged and controls != [pair]:
            estimates[at] = _estimate(pair, [other for other in controls if other is not pair])
    adjusted = holm([beyond(estimate, margin) for estimate, margin in estimates.values()])
    sure = {at: p <= ALPHA for at, p in zip(estimates, adjusted, strict=True)}
    verdicts = tuple(_verdict(pair, estimates.get(at), sure.get(at, False)) for at, pair in enumerate(pairs))
    only = [(before, set(first) - set(second)), (after, set(second) - set(first))]
    return Comparison(verdicts, tuple(_notes(before, after, changed, controls, only)), bool(controls))


def _estimate(pair: Pair, controls: Sequence[Pair]) -> tuple[Estimate, float]:
    """The logarithm of time after over time before, less the machine's own, and the margin it must exceed."""
    own = [np.log(row.samples_ms) for row in pair]
    paired = [other for other in controls if _same_rounds(pair, other)]
    near = paired or [other for other in controls if other[0].scenario == "single_stream"]
    if not near:
        levels = [level(samples) for samples in own]
        return combined(levels[1].value - levels[0].value, levels), LONE_MARGIN
    common = _common(near)
    if paired:
        series = [samples - shared for samples, shared in zip(own, common, strict=True)]
        levels = [level(samples) for samples in series]
        moved = levels[1].value - levels[0].value
    else:
        levels = [level(samples) for samples in (*own, *common)]
        moved = levels[1].value - levels[0].value - (levels[3].value - levels[2].value)
    return combined(moved, [*levels, _between(near)]), MARGIN if len(near) > 1 else ONE_PEER_MARGIN


def _common(controls: Sequence[Pair]) -> list[np.ndarray]:
    """Of each run: what its controls took in each round, as a logarithm, relative to their level over both runs."""
    logs = [[np.log(row.samples_ms) for row in pair] for pair in controls]
    middles = [(np.median(first) + np.median(second)) / 2 for first, second in logs]
    return [
        np.median([pair[run] - middle for pair, middle in zip(logs, middles, strict=True)], axis=0) for run in (0, 1)
    ]


def _between(controls: Sequence[Pair]) -> Estimate:
    """How far untouched code moves between two runs beside what it shares: the controls' own spread, and a prior.

    Few controls tell little of their spread, so it is drawn towards what is usual (Smyth 2004).
    """
    moved = [
        float(np.median(np.log(after.samples_ms)) - np.median(np.log(before.samples_ms))) for before, after in controls
    ]
    seen = len(moved) - 1
    squares = _WEIGHT * _USUAL**2 + float(np.var(moved) * len(moved))
    return Estimate(0.0, math.sqrt(squares / (_WEIGHT + seen) * (1 + 1 / len(moved))), _WEIGHT + seen)


def _same_rounds(pair: Pair, other: Pair) -> bool:
    """Whether sample i of both was taken in the same round, in either run."""
    return pair[0].scenario != "server" and all(
        (mine.scenario, len(mine.samples_ms)) == (its.scenario, len(its.samples_ms))
        for mine, its in zip(pair, other, strict=True)
    )


def _verdict(pair: Pair, found: tuple[Estimate, float] | None, sure: bool) -> Verdict:
    before, after = (float(np.median(row.samples_ms)) for row in pair)
    if found is None:
        fewest = min(len(row.samples_ms) for row in pair)
        few = f"{fewest} samples, {LEAST_SAMPLES} needed" if fewest < LEAST_SAMPLES else ""
        why = _incomparable(pair) or few or "the only control: nothing to hold it against"
        return Verdict(pair[1], before, after, None, None, None, "cannot tell", why)
    estimate, _ = found
    low, high = interval(estimate)
    judgement: Judgement = "cannot tell" if not sure else "slower" if estimate.value > 0 else "faster"
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


def _check_work(before: Record, after: Record) -> None:
    """Raises InputError unless both runs asked networks of the same shape."""
    shapes = []
    for record in (before, after):
        spec = record.facts["bundle"].get("input") or {}
        shapes.append(
            (record.facts["bundle"].get("architecture"), spec.get("height"), spec.get("width"), spec.get("channels"))
        )
    if shapes[0] != shapes[1]:
        said = [f"{name} at {height} × {width} × {channels}" for name, height, width, channels in shapes]
        raise InputError(
            f"{before.name} measured {said[0]}, {after.name} {said[1]}: their times say nothing of the code. Measure "
            "bundles of the same architecture and image size."
        )


_SAME = (
    ("cpu", "CPU"),
    ("cpus", "CPUs"),
    ("memory_bytes", "bytes of memory"),
    ("system", "system"),
    ("python", "Python"),
)
_MACHINE = ("CPU", "CPUs")
_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch", "torchvision"),
    "aotinductor": ("torch", "torchvision"),
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
}
"""By a peer's backend: the packages whose versions make it another contender; numpy and pillow are behind all."""


def _changed(before: Record, after: Record) -> dict[str, tuple[object, object]]:
    """Circumstances that differ, packages among them: what → (before, after)."""
    first, second = before.machine, after.machine
    found = {said: (first.get(key), second.get(key)) for key, said in _SAME if first.get(key) != second.get(key)}
    versions = first.get("versions") or {}, second.get("versions") or {}
    for package in sorted({*versions[0], *versions[1]} - {"neurostage"}):
        if versions[0].get(package) != versions[1].get(package):
            found[package] = versions[0].get(package), versions[1].get(package)
    return found


def _machines_differ(changed: Mapping[str, object]) -> bool:
    return any(what in changed for what in _MACHINE)


def _untouched(pair: Pair, changed: Mapping[str, object]) -> bool:
    """Whether a row is a peer that is the same in both runs, with samples enough to be held against."""
    row = pair[1]
    behind = (
        *_LIBRARIES.get(row.backend, ("torch", "torchvision", "onnxruntime", "openvino")),
        "numpy",
        "pillow",
        "Python",
    )
    return (
        row.kind == "peer"
        and not any(what in changed for what in behind)
        and pair[0].settings == row.settings
        and min(len(one.samples_ms) for one in pair) >= LEAST_SAMPLES
    )


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
    if _machines_differ(changed):
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
    notes += [f"only in {record.name}: {', '.join(sorted(key[1] for key in keys))}" for record, keys in only if keys]
    return notes
