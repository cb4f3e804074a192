"""Looks up figures of `run.json` and `evaluation.json` by path. A missing or invalid figure is an error."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

from stageproof.runtime.errors import InputError, TrainingError
from stageproof.runtime.labels import LabelSet
from stageproof.train.runs.record import reported_classes


class CardError(TrainingError):
    """A figure of a card is missing. Nothing was written."""


_FIGURE = {"value", "low", "high", "patients"}


class Facts:
    """The content of a JSON file, by path."""

    def __init__(self, name: str, content: dict[str, Any]) -> None:
        self.name, self.content = name, content

    @cached_property
    def classes(self) -> LabelSet:
        """The label set. Raises CardError if it is missing or invalid."""
        try:
            return reported_classes(self.content)
        except (KeyError, AttributeError, TypeError, InputError) as error:
            raise CardError(f"{self.name} names no valid classes ({error}). Evaluate the run again.") from error

    def __call__(self, path: str, *names: str) -> Any:
        """The value at `path`, such as ``data.sizes.0.width``, then at the keys `names`, which may contain dots.

        Raises CardError if there is none, or for a figure that has neither a value nor a reason.
        """
        found: Any = self.content
        keys, path = [*path.split("."), *names], ".".join((path, *names))
        for key in keys:
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                raise CardError(f"{self.name} has no {path}, which the card needs. Evaluate the run again.")
        if found is None or not _is_whole(found):
            raise CardError(f"{path} of {self.name} is {found!r}, which no card can say. Evaluate the run again.")
        return found

    def known(self, path: str, optional: bool = False) -> bool:
        """Whether the value at `path` is not None, which means unknown. Raises CardError as above.

        optional: a missing key means unknown as well.
        """
        holder, _, key = path.rpartition(".")
        content = self(holder) if holder else self.content
        if key not in content and not optional:
            raise CardError(f"{self.name} has no {path}, which the card needs. Evaluate the run again.")
        return content.get(key) is not None


def _is_whole(found: Any) -> bool:
    """Whether a number is finite, and a figure complete: a value and its interval, or the reason for having none."""
    if isinstance(found, float):
        return math.isfinite(found)
    if not isinstance(found, dict) or not _FIGURE & set(found) - {"patients"}:
        return True
    if any(isinstance(value, float) and not math.isfinite(value) for value in found.values()):
        return False
    ends = (found.get("low") is not None and found.get("high") is not None) or found.get("patients", 0) is None
    return set(found) >= _FIGURE and ("why" in found or (found["value"] is not None and ends))
