"""What was chosen by looking at which slices: a figure on slices that something was chosen on is too high."""

from __future__ import annotations

from typing import Any


def selections(record: dict[str, Any], fitted: bool, threshold: bool, own: bool) -> list[dict[str, str]]:
    """What was chosen, by what, and on which slices; JSON-ready.

    record: the content of `run.json`. fitted: whether this evaluation fitted a temperature, threshold: whether it chose
    a threshold for abstention. own: whether the evaluated slices are those that the run held out.
    """
    recipe, split = record.get("recipe") or {}, record.get("split") or {}
    keep, patience = recipe.get("keep", "last"), recipe.get("patience", 0)
    side = str(split.get("selected_on") or "validation")
    judged = " (the evaluated slices)" if own and side == "validation" else ""
    found = [
        {
            "what": "weights",
            "by": "last epoch" if keep == "last" else f"epoch of the best {str(keep).replace('_', ' ')}",
            "on": "nothing" if keep == "last" else f"the {side} part{judged}",
        },
        {
            "what": "end of training",
            "by": "early stopping" if patience else "fixed number of epochs",
            "on": f"the {side} part{judged}" if patience else "nothing",
        },
    ]
    other = "other people than those each figure is of, among the evaluated slices"
    found.append(
        {
            "what": "temperature",
            "by": "negative log-likelihood" if fitted else "not fitted here",
            "on": other if fitted else "nothing" if own else "the slices that the run held out",
        }
    )
    found.append(
        {
            "what": "threshold for abstention",
            "by": "target risk" if threshold else "not chosen here",
            "on": other if threshold else "nothing",
        }
    )
    found.append({"what": "recipe", "by": "not recorded", "on": "not recorded"})
    return found


def selected_on_evaluated(found: list[dict[str, str]]) -> bool:
    """Whether weights or the end of training were chosen on the evaluated slices."""
    return any("(the evaluated slices)" in one["on"] for one in found)
