"""How other data differs from the data of the run, as rows of two columns for the report and the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stageproof.train.reports.clinical_sections import Section

HEADS = ("", "data of the run", "these slices")
_NOT = "not known"
_SCORES = {
    "blank": "contrast (blank)",
    "colour": "colour",
    "border": "bright border",
    "smooth": "structure (smooth)",
    "residual": "residual",
    "distance": "distance",
    "orientation": "orientation",
}
"""Score of the guard → its name in a table."""


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(what, of the run, of the evaluated slices). found: ``populations`` of `evaluation.json`."""
    made = [("slices", *(str(found["slices"][side]) for side in _SIDES))]
    made += [(f"share of {label}", *(f"{one[side]:.1%}" for side in _SIDES)) for label, one in found["classes"].items()]
    made.append(("image size, pixels: most frequent", *(_size(found["sizes"][side]) for side in _SIDES)))
    patients = found["patients"]
    made.append(("age in years: mean (SD)", *(_age(patients[side]) for side in _SIDES)))
    made.append(("patients recorded as female", *(_female(patients[side]) for side in _SIDES)))
    if guard := found["guard"]:
        made.append(("above a limit of the guard", *(f"{guard['rejected'][side]:.1%}" for side in _SIDES)))
        for code, one in guard["scores"].items():
            name = f"{_SCORES.get(code, code)}, limit {one['limit']:.3g}"
            made.append((name, *(_cuts(one[side]) for side in _SIDES)))
    return made


def explained(found: Mapping[str, Any]) -> str:
    """What the rows are, and what is missing."""
    guard = found["guard"]
    if guard is None:
        return f"The images were not compared: {found['why_no_guard']}."
    return (
        f"Guard: fitted on {guard['fitted_on']['images']:.0f} training slices; scores of {guard['scored']['run']} "
        f"validation slices of the run and of {guard['scored']['here']} of these slices: share above the limit, then "
        "median [5 %, 95 % quantile]. Higher is more unusual. Other rows of the run: all of its data."
    )


def section(found: Mapping[str, Any]) -> Section:
    """The section of a report."""
    return Section(
        "Populations",
        "How the data of this evaluation differs from the data of the run.",
        HEADS,
        tuple(rows(found)),
        explained(found),
    )


_SIDES = ("run", "here")


def _size(sizes: list[dict[str, int]] | None) -> str:
    if not sizes:
        return _NOT
    total, first = sum(one["slices"] for one in sizes), sizes[0]
    more = f", {len(sizes)} sizes" if len(sizes) > 1 else ""
    return f"{first['width']} × {first['height']} ({first['slices'] / total:.0%}{more})"


def _age(part: Mapping[str, Any] | None) -> str:
    if not part or not part["age"]:
        return _NOT
    sd = "" if part["age"]["sd"] is None else f" ({part['age']['sd']:.1f})"
    return f"{part['age']['mean']:.1f}{sd}, of {part['age']['recorded']}"


def _female(part: Mapping[str, Any] | None) -> str:
    recorded = 0 if not part else sum(part["sex"][name] for name in ("female", "male", "other"))
    return f"{part['sex']['female'] / recorded:.1%} of {recorded}" if part and recorded else _NOT


def _cuts(one: Mapping[str, float]) -> str:
    return f"{one['above']:.1%}; {one['median']:.3g} [{one['low']:.3g}, {one['high']:.3g}]"
