"""Warnings about classes without slices in the evaluation data or in the training data."""

from __future__ import annotations

from typing import Any


def absent_warnings(facts: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """The warnings. facts: content of `evaluation.json`. record: content of `run.json`."""
    here = [label for label, count in facts["data"]["slices_by_class"].items() if not count]
    never = [label for label, count in record["data"]["slices_by_class"].items() if not count]
    warnings = []
    if here:
        warnings.append(
            f"NO SLICE OF {', '.join(here)}: metrics of this class are not estimable, and means over classes do not "
            "include it."
        )
    if never:
        warnings.append(
            f"NEVER TRAINED ON {', '.join(never)}: the training data has no slice of this class, so its predicted "
            "probability is meaningless."
        )
    return warnings
