"""Flow of slices and patients, as the boxes of a diagram and as the rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

UNDECIDED = "left out: may be of several groups"


@dataclass(frozen=True)
class Box:
    """One box of the diagram."""

    title: str
    lines: tuple[str, ...]
    kind: str = ""
    """``next``: the next step continues from it. ``aside``: left out at this step. Otherwise: the flow ends here."""


def boxes(found: Mapping[str, Any]) -> list[list[Box]]:
    """The boxes of each step, in order. found: from `train.evaluate.flow.flow`."""
    unit, source = found["unit"], found["source"]
    steps = [[Box("Files found", (str(source["found"]),), "next")], [Box("Read", _counts(source, unit), "next")]]
    ignored = [f"{one['count']} {one['reason']}" for one in source["not_taken"] or ()]
    steps[0].append(Box("Left out", (*ignored, f"{source['unreadable']} unreadable"), "aside"))
    if found["left_out"]:
        steps[1].append(Box("Left out", (f"{found['left_out']} of patients in the data of the run",), "aside"))
    elif source["copies"]:
        steps[1].append(Box("Of these", (f"{source['copies']} altered copies, kept with their originals",), "aside"))
    if found["parts"]:
        steps.append(
            [
                Box(one["name"].capitalize(), _counts(one, unit), "next" if one["evaluated"] else "")
                for one in found["parts"]
            ]
        )
    steps.append([Box("Evaluated", _counts(found["evaluated"], unit), "next")])
    abstained = _counts(found["abstained"], unit) if found["abstains"] else ("no threshold was set",)
    steps.append(
        [
            Box("Predicted", _counts(found["answered"], unit), "next"),
            Box("Abstained", abstained),
            Box("Rejected", ("no input check in an evaluation",)),
        ]
    )
    return steps


def rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The diagram as a table: step, slices, patients or groups. found: from `train.evaluate.flow.flow`."""
    source, blank = found["source"], "not counted"
    table = [("files found", str(source["found"]), blank)]
    table += [(f"left out: {one['reason']}", str(one["count"]), blank) for one in source["not_taken"] or ()]
    table.append(("left out: unreadable", str(source["unreadable"]), blank))
    table.append(_row("read", source))
    if source["copies"]:
        table.append(("of these, altered copies (kept with their originals)", str(source["copies"]), blank))
    if found["left_out"]:
        table.append(("left out: of patients in the data of the run", str(found["left_out"]), blank))
    if found["undecided"]:
        table.append((UNDECIDED, str(found["undecided"]), blank))
    table += [_row(one["name"], one) for one in found["parts"]]
    steps = (("evaluated", "evaluated"), ("predicted", "answered"), ("abstained", "abstained"))
    table += [_row(step, found[key]) for step, key in steps]
    table.append(("rejected by the input check", "not applied", "not applied"))
    return table


def _row(step: str, counted: Mapping[str, int | None]) -> tuple[str, str, str]:
    slices, people = ("unknown" if counted[name] is None else str(counted[name]) for name in ("slices", "people"))
    return step, slices, people


def _counts(counted: Mapping[str, int | None], unit: str | None) -> tuple[str, ...]:
    named = [("slices", counted["slices"]), *([(unit, counted["people"])] if unit else [])]
    return tuple(f"{name} unknown" if count is None else f"{count} {name}" for name, count in named)
