"""Lists what was selected or fitted on which slices: metrics on slices used for selection are optimistic."""

from __future__ import annotations

from typing import Any


def selections(record: dict[str, Any], fitted: bool, threshold: bool, own: bool) -> list[dict[str, str]]:
    """What was selected, by which criterion, and on which slices; JSON-serialisable.

    record: content of `run.json`. fitted: whether this evaluation fitted a temperature. threshold: whether it chose an
    abstention threshold. own: whether the evaluated slices are those that the run held out.
    """
    recipe, split = record.get("recipe") or {}, record.get("split") or {}
    keep, patience = str(recipe.get("keep", "last")), recipe.get("patience", 0)
    side = str(split.get("selected_on") or "validation")
    judged = " (the evaluated slices)" if own and side == "validation" else ""
    part, other = f"the {side} part{judged}", "other people than those each figure is of, among the evaluated slices"
    weights = ("last epoch", "nothing") if keep == "last" else (f"epoch of the best {keep.replace('_', ' ')}", part)
    end = ("early stopping", part) if patience else ("fixed number of epochs", "nothing")
    unfitted = ("not fitted here", "nothing" if own else "the slices that the run held out")
    temperature = ("negative log-likelihood", other) if fitted else unfitted
    abstention = ("target risk", other) if threshold else ("not chosen here", "nothing")
    rows = (
        ("weights", *weights),
        ("end of training", *end),
        ("temperature", *temperature),
        ("threshold for abstention", *abstention),
        ("recipe", "not recorded", "not recorded"),
    )
    return [{"what": what, "by": by, "on": on} for what, by, on in rows]


def selected_on_evaluated(found: list[dict[str, str]]) -> bool:
    """Whether the weights or the end of training were selected on the evaluated slices."""
    return any("(the evaluated slices)" in one["on"] for one in found)


def on_evaluated(record: dict[str, Any], own: bool) -> bool:
    """Whether the epoch was selected on the slices that the run held out and that are evaluated (own).

    True for runs with --keep or --patience of early versions, which had no separate selection set.
    """
    return selected_on_evaluated(selections(record, fitted=False, threshold=False, own=own))


def selection_sentence(record: dict[str, Any]) -> str:
    """One sentence: how the epoch was selected, and on which patients. record: content of `run.json`."""
    recipe, split = record.get("recipe") or {}, record.get("split") or {}
    if recipe.get("keep", "last") == "last" and not recipe.get("patience", 0):
        return "No epoch was selected: the last one was kept, after a fixed number of epochs."
    part = split.get("selection")
    if not part:
        return "The epoch was selected on the slices that the run held out."
    unit = "groups" if "groups" in part else "patients"
    people = f" of {part[unit]} {unit}" if part[unit] is not None else ""
    return f"The epoch was selected on {part['slices']} slices{people} that are in neither training nor test."
