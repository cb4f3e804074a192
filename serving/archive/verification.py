"""`verify`: is every listed input in exactly one row of a valid part, and are the inputs still the same?"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

from stageproof.serving.archive.inputs.entry import Entry
from stageproof.serving.archive.inputs.reading import Reader, UnreadableError, changed
from stageproof.serving.archive.output import parts
from stageproof.serving.archive.output.files import TEMPORARY
from stageproof.serving.archive.output.plan import Plan

MISSING = ""
"""The fault of a part that does not exist."""


@dataclass(frozen=True)
class Verified:
    """The result of `verify`."""

    inputs: int
    rows: int
    """Rows in valid parts."""
    statuses: Counter[str]
    missing: tuple[int, ...]
    """Shards without a part."""
    faults: dict[int, str]
    """Shard → what is wrong with its part."""
    foreign: tuple[str, ...]
    """Files beside the parts that belong to no shard; a reader of the whole folder would read them too."""
    changed: int | None
    """Inputs whose content differs from what was scored; None if they were not read again."""

    @property
    def complete(self) -> bool:
        """Whether every input has exactly one row, of its present content if that was checked."""
        return not (self.missing or self.faults or self.foreign or self.changed)


def verify(plan: Plan, *, reread: bool = False) -> Verified:
    """Verify an output. reread: also read every input again and compare its digest with the one in its row.

    Raises InputError if the listing cannot be read.
    """
    rows, statuses, missing, wrong, differing = 0, Counter[str](), [], {}, 0
    for shard in plan.shards:
        fault = part_fault(plan, shard)
        if fault is None:
            table, _ = parts.read(plan.part(shard))
            rows += len(table)
            statuses.update(table.column("status").to_pylist())
            if reread:
                differing += len(_changed(plan, plan.entries(shard), table, every=True))
        elif fault == MISSING:
            missing.append(shard)
        else:
            wrong[shard] = fault
    expected = {plan.part(shard).name for shard in plan.shards}
    found = sorted(one.name for one in plan.parts.iterdir()) if plan.parts.is_dir() else []
    foreign = tuple(name for name in found if name not in expected and not name.startswith(TEMPORARY))
    return Verified(plan.inputs, rows, statuses, tuple(missing), wrong, foreign, differing if reread else None)


def part_fault(plan: Plan, shard: int) -> str | None:
    """What is wrong with the part of a shard: `MISSING`, a text, or None."""
    path = plan.part(shard)
    if not path.exists():
        return MISSING
    listing = plan.listing
    columns = _schema(plan.classes, plan.guard_scores)
    return parts.fault(path, plan.identity(shard), listing.count(shard), listing.first(shard), columns)


def faults(plan: Plan, shard: int) -> str | None:
    """As `part_fault`; also a text if inputs have another size or time than listed, and another content than scored."""
    fault = part_fault(plan, shard)
    if fault is not None:
        return fault
    table, _ = parts.read(plan.part(shard))
    differing = _changed(plan, plan.entries(shard), table, every=False)
    if not differing:
        return None
    return f"the content of {len(differing)} inputs changed since, the first one input {differing[0]}"


def _changed(plan: Plan, entries: list[Entry], table: Any, *, every: bool) -> list[int]:
    """Numbers of the inputs whose content is not what was scored. every: read all, not only those with another time."""
    folder = plan.listing.about["folder"]
    numbers, scored = table.column("input").to_pylist(), table.column("sha256").to_pylist()
    differing = []
    with Reader(folder) as reader:
        for number, entry, digest in zip(numbers, entries, scored, strict=True):
            if not every and not changed(entry, folder):
                continue
            try:
                found = hashlib.sha256(reader.read(entry)).hexdigest()
            except UnreadableError:
                found = None
            if found != digest:
                differing.append(number)
    return differing


@cache
def _schema(classes: tuple[str, ...], guard_scores: tuple[str, ...]) -> Any:
    return parts.schema(classes, guard_scores)
