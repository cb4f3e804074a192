"""The flow of slices and patients as an SVG that a phone can show, and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stageproof.runtime.text.escapes import markup as escape

UNDECIDED = "left out: may be of several groups"
_WIDTH, _LINE, _PAD, _GAP = 360, 15, 8, 22
_MAIN, _BESIDE = 196, 142


def diagram(found: Mapping[str, Any]) -> str:
    """SVG text. found: from `train.evaluate.flow.flow`."""
    unit, source = found["unit"], found["source"]
    left = [f"{one['count']} {one['reason']}" for one in source["not_taken"] or ()]
    left.append(f"{source['unreadable']} unreadable")
    drawing = _Drawing()
    drawing.one(["Files found", str(source["found"])], ["Left out", *left])
    copies = [f"{source['copies']} altered copies kept", "with their originals"] if source["copies"] else []
    beside = (
        [f"{found['left_out']} left out: show", "somebody the run was", "made with"] if found["left_out"] else copies
    )
    drawing.one(["Read", *_lines(source["slices"], source["people"], unit)], beside)
    if found["parts"]:
        boxes = [[one["name"].capitalize(), *_lines(one["slices"], one["people"], unit)] for one in found["parts"]]
        drawing.several(boxes, [one["evaluated"] for one in found["parts"]])
    drawing.one(["Evaluated", *_lines(**found["evaluated"], unit=unit)], [], strong=True)
    rejected = ["Rejected", "no input check", "in an evaluation"]
    outcomes = [[name.capitalize(), *_lines(**found[name], unit=unit)] for name in ("answered", "abstained")]
    if not found["abstains"]:
        outcomes[1] = ["Abstained", "no threshold", "was set"]
    drawing.several([*outcomes, rejected], [True, False, False])
    return drawing.text()


def rows(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The diagram as a table: step, slices, patients or groups. found: from `train.evaluate.flow.flow`."""

    def cells(step: str, slices: int | None, people: int | None) -> tuple[str, str, str]:
        return step, "unknown" if slices is None else str(slices), "unknown" if people is None else str(people)

    source, blank = found["source"], "not counted"
    table = [("files found", str(source["found"]), blank)]
    table += [(f"left out: {one['reason']}", str(one["count"]), blank) for one in source["not_taken"] or ()]
    table.append(("left out: unreadable", str(source["unreadable"]), blank))
    table.append(cells("read", source["slices"], source["people"]))
    if source["copies"]:
        table.append(("of these, altered copies (kept with their originals)", str(source["copies"]), blank))
    if found["left_out"]:
        table.append(("left out: show somebody the run was made with", str(found["left_out"]), blank))
    if found["undecided"]:
        table.append((UNDECIDED, str(found["undecided"]), blank))
    table += [cells(one["name"], one["slices"], one["people"]) for one in found["parts"]]
    table.append(cells("evaluated", found["evaluated"]["slices"], found["evaluated"]["people"]))
    table.append(cells("answered", found["answered"]["slices"], found["answered"]["people"]))
    table.append(cells("abstained", found["abstained"]["slices"], found["abstained"]["people"]))
    table.append(("rejected by the input check", "not applied", "not applied"))
    return table


def _lines(slices: int | None, people: int | None, unit: str | None) -> list[str]:
    lines = ["slices unknown" if slices is None else f"{slices} slices"]
    return lines if unit is None else [*lines, f"{unit} unknown" if people is None else f"{people} {unit}"]


class _Drawing:
    """Boxes below one another, joined by lines."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.bottom = 4
        self.ends: list[int] = []
        """Where lines come down from: x of the boxes above that go on."""

    def one(self, lines: Sequence[str], beside: Sequence[str], strong: bool = False) -> None:
        beside = [piece for line in beside for piece in _wrapped(line, 21)]
        height = max(_height(lines), _height(beside) if beside else 0)
        top = self._lead([_MAIN // 2])
        self._box(0, top, _MAIN, height, lines, strong)
        if beside:
            middle = top + height // 2
            self.parts.append(f'<path d="M{_MAIN} {middle}H{_WIDTH - _BESIDE}"/>')
            self._box(_WIDTH - _BESIDE, top, _BESIDE, height, beside, False)
        self._end(top + height, [_MAIN // 2])

    def several(self, boxes: Sequence[Sequence[str]], going_on: Sequence[bool]) -> None:
        gap = 10
        width = (_WIDTH - gap * (len(boxes) - 1)) // len(boxes)
        height = max(_height(lines) for lines in boxes)
        middles = [at * (width + gap) + width // 2 for at in range(len(boxes))]
        top = self._lead(middles)
        for at, lines in enumerate(boxes):
            self._box(at * (width + gap), top, width, height, lines, going_on[at])
        self._end(top + height, [middle for middle, on in zip(middles, going_on, strict=True) if on])

    def _lead(self, middles: Sequence[int]) -> int:
        """Lines from the boxes above to those below; where these begin."""
        if not self.ends:
            return self.bottom
        half, top = self.bottom + _GAP // 2, self.bottom + _GAP
        points = sorted([*self.ends, *middles])
        self.parts += [f'<path d="M{x} {self.bottom}V{half}"/>' for x in self.ends]
        self.parts.append(f'<path d="M{points[0]} {half}H{points[-1]}"/>')
        self.parts += [f'<path d="M{x} {half}V{top}" marker-end="url(#head)"/>' for x in middles]
        return top

    def _end(self, bottom: int, ends: Sequence[int]) -> None:
        self.bottom, self.ends = bottom, list(ends)

    def _box(self, x: int, y: int, width: int, height: int, lines: Sequence[str], strong: bool) -> None:
        fill = "#e8f0f8" if strong else "#fff"
        self.parts.append(f'<rect x="{x + 1}" y="{y}" width="{width - 2}" height="{height}" rx="4" fill="{fill}"/>')
        first = y + (height - _LINE * len(lines)) // 2 + 12
        for at, line in enumerate(lines):
            weight = ' font-weight="600"' if at == 0 else ""
            self.parts.append(
                f'<text x="{x + width // 2}" y="{first + at * _LINE}" stroke="none" fill="#222" '
                f'text-anchor="middle"{weight}>{escape(line)}</text>'
            )

    def text(self) -> str:
        return (
            f'<svg viewBox="0 0 {_WIDTH} {self.bottom + 4}" role="img" '
            'aria-label="flow of slices and patients; the table below has the same numbers" '
            'style="width:100%;max-width:34rem;display:block;margin:1rem 0" font-family="system-ui, sans-serif" '
            'font-size="12" stroke="#4a7ab5" fill="none"><defs><marker id="head" viewBox="0 0 6 6" refX="6" refY="3" '
            'markerWidth="6" markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="#4a7ab5" stroke="none"/>'
            f"</marker></defs>{''.join(self.parts)}</svg>"
        )


def _height(lines: Sequence[str]) -> int:
    return _LINE * len(lines) + 2 * _PAD


def _wrapped(line: str, width: int) -> list[str]:
    from textwrap import wrap

    return wrap(line, width) or [""]
