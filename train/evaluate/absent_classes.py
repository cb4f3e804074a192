"""Classes without slices, in what a run is judged on or in what it was trained on: said before any figure."""

from __future__ import annotations

from typing import Any


def absent_warnings(facts: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """facts: the content of `evaluation.json`. record: that of the run's `run.json`."""
    here = [label for label, count in facts["data"]["slices_by_class"].items() if not count]
    never = [label for label, count in record["data"]["slices_by_class"].items() if not count]
    said = []
    if here:
        said.append(
            f"NO SLICE OF {', '.join(here)} here: figures of it are not estimable, and means over classes are over the "
            "others."
        )
    if never:
        said.append(
            f"NEVER TRAINED ON {', '.join(never)}: the run's data had no slice of it, so its answers mean nothing."
        )
    return said
