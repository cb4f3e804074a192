"""Flow of slices and patients, from the source to the predictions (STARD 2015 item 19, CLAIM 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stageproof.train.reports.flow_diagram import UNDECIDED

PARTS = {
    "left out": UNDECIDED,
    "training": "training",
    "selection": "selection",
    "validation": "held out",
    "test": "test",
}
"""Part of a split as in split.csv → its name in the diagram, in the order of the diagram."""


def flow(
    source: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    evaluated: Mapping[str, int | None],
    *,
    unit: str | None,
    left_out: int = 0,
    undecided: int = 0,
    coverage: Mapping[str, float | None] | None = None,
) -> dict[str, Any]:
    """Numbers of the flow diagram, JSON-serialisable.

    source: ``slices`` that were read, ``people`` (None: unknown), ``unreadable``, and, if the run recorded them,
        ``not_taken`` (``reason`` and ``count`` of files) and ``copies``.
    parts: from `parts_of`. evaluated: numbers of evaluated ``slices`` and ``people``. unit: ``patients`` or ``groups``.
    left_out: slices of other data that show patients in the data of the run. undecided: slices of other data that may
        belong to several groups.
    coverage: coverage of ``slices`` and of ``people``, in [0, 1]; None if the model never abstains.

    ``rejected`` is None, because an evaluation does not run the input guard.
    """
    share = coverage or {"slices": 1.0, "people": 1.0}
    answered = {name: _part(evaluated[name], share[name]) for name in ("slices", "people")}
    not_taken = source.get("not_taken")
    return {
        "unit": unit,
        "source": {
            "slices": source["slices"],
            "people": source["people"],
            "unreadable": source["unreadable"],
            "not_taken": not_taken,
            "found": source["slices"] + source["unreadable"] + sum(one["count"] for one in not_taken or ()),
            "copies": source.get("copies"),
        },
        "left_out": left_out,
        "undecided": undecided,
        "parts": [dict(part) for part in parts],
        "evaluated": dict(evaluated),
        "abstains": coverage is not None,
        "answered": answered,
        "abstained": {name: _less(evaluated[name], answered[name]) for name in answered},
        "rejected": None,
    }


def parts_of(sides: Mapping[str, tuple[str, str]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Numbers of slices and patients in each part of a split, JSON-serialisable.

    sides: slice name → patient (or group; empty if unknown) and part, from split.csv. names: of the evaluated slices.
    """
    people: dict[str, set[str]] = {}
    count: dict[str, int] = {}
    for patient, part in sides.values():
        people.setdefault(part, set()).add(patient)
        count[part] = count.get(part, 0) + 1
    judged = {sides[name][1] for name in names if name in sides}
    order = [*PARTS, *sorted(set(count) - set(PARTS))]
    return [
        {
            "part": part,
            "name": PARTS.get(part, part),
            "slices": count[part],
            "people": None if "" in people[part] or part == "left out" else len(people[part]),
            "evaluated": part in judged,
        }
        for part in order
        if part in count
    ]


def _part(total: int | None, share: float | None) -> int | None:
    return None if total is None or share is None else round(total * share)


def _less(total: int | None, part: int | None) -> int | None:
    return None if total is None or part is None else total - part
