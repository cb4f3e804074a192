"""Results for clinical readers: patient flow, demographics, subgroups, predictive values and net benefit.

They follow TRIPOD+AI (2024), CLAIM (2024 update) and STARD-AI (2025); docs/statistics/cards.md lists the items.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from stageproof.train.data.sources.age_and_sex import Traits, traits_of
from stageproof.train.evaluate.demographics import by_patient, described, subgroups
from stageproof.train.evaluate.flow import PARTS, flow, parts_of
from stageproof.train.metrics.between_runs import between_runs
from stageproof.train.metrics.classification import Answers
from stageproof.train.metrics.net_benefit import net_benefit
from stageproof.train.metrics.prevalence import predictive_values
from stageproof.train.runs.selection import selections
from stageproof.train.runs.split_file import read_split
from stageproof.train.test_set.held_out import HeldOut


def clinical(
    run: Path, record: dict[str, Any], held: HeldOut, people: Answers | None, facts: dict[str, Any]
) -> dict[str, Any]:
    """The clinical entries of `evaluation.json`, JSON-serialisable.

    people: one prediction for each patient; None if patients are unknown. facts: the content so far, with ``data``,
    ``slices``, ``patients``, ``calibration`` and ``abstention``.
    """
    sides = read_split(run) if held.own else {}
    known = [*sides, *(name for name in held.slices.names if name not in sides)]
    traits = traits_of(Path(held.source) if Path(held.source).exists() else None, known)
    threshold = bool(facts["abstention"])
    fitted = held.own and facts["calibration"]["after"] is not None
    return {
        "flow": _flow(record, held, sides, facts),
        "demographics": _demographics(held, sides, traits, known),
        "subgroups": _subgroups(held, people, traits, known),
        "predictive_values": predictive_values(people.predicted_positive, people.positive) if people else None,
        "net_benefit": net_benefit(people.positive_probability, people.positive) if people else None,
        "selection": selections(record, fitted, threshold, held.own),
        "between_runs": between_runs(run, record, facts) if held.own else None,
    }


def _flow(
    record: dict[str, Any], held: HeldOut, sides: dict[str, tuple[str, str]], facts: dict[str, Any]
) -> dict[str, Any]:
    judged = len(held.slices)
    people = None if held.unit is None or held.patients is None else len(np.unique(held.patients))
    if held.own:
        data = record["data"]
        source = {
            "slices": data["slices"],
            "people": data.get(held.unit or ""),
            "unreadable": data.get("unreadable", 0),
        }
        source |= {name: data.get(name) for name in ("not_taken", "copies")}
    else:
        source = {"slices": judged + held.seen + held.undecided, "people": None, "unreadable": held.unreadable}
    return flow(
        source,
        parts_of(sides, held.slices.names),
        {"slices": judged, "people": people},
        unit=held.unit,
        left_out=held.seen,
        undecided=held.undecided,
        coverage=_coverage(facts["abstention"]),
    )


def _coverage(abstention: dict[str, Any] | None) -> dict[str, float | None] | None:
    """Coverage of slices and of patients, at thresholds chosen on other patients; None if the model never abstains."""
    if not abstention:
        return None
    found = {}
    for name, level in (("slices", "slices"), ("people", "patients")):
        share = (abstention.get(level) or {}).get("coverage")
        found[name] = share["value"] if share else None
    return found


def _demographics(
    held: HeldOut, sides: dict[str, tuple[str, str]], traits: Traits | None, known: list[str]
) -> dict[str, Any] | None:
    """Age and sex by part of the data; None if the data has neither, or if patients are unknown."""
    if traits is None or held.unit != "patients" or held.patients is None:
        return None
    row = {name: at for at, name in enumerate(known)}
    judged = set(held.slices.names)
    members: dict[str, list[str]] = {}
    for name, (_, part) in sides.items():
        members.setdefault("evaluated" if name in judged else part, []).append(name)
    parts = []
    for part in (*PARTS, *sorted(set(members) - set(PARTS) - {"evaluated"})):
        if part in members:
            names = members[part]
            owners = np.unique([sides[name][0] for name in names], return_inverse=True)[1].astype(np.int64)
            parts.append({"name": PARTS.get(part, part), **_part(traits, row, names, owners)})
    parts.append({"name": "evaluated", **_part(traits, row, list(held.slices.names), held.patients)})
    return {"origin": traits.origin, "parts": parts}


def _part(traits: Traits, row: dict[str, int], names: list[str], patients: np.ndarray) -> dict[str, Any]:
    return described(*by_patient(_rows(traits, row, names), patients))


def _rows(traits: Traits, row: dict[str, int], names: list[str]) -> Traits:
    at = [row[name] for name in names]
    return Traits(traits.ages[at], traits.sexes[at], traits.origin)


def _subgroups(
    held: HeldOut, people: Answers | None, traits: Traits | None, known: list[str]
) -> list[dict[str, Any]] | None:
    if people is None or traits is None or held.patients is None:
        return None
    row = {name: at for at, name in enumerate(known)}
    ages, sexes = by_patient(_rows(traits, row, list(held.slices.names)), held.patients)
    return subgroups(people, ages, sexes)
