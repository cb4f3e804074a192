"""Which precision a built artifact really has: counted in the file, never taken from what was asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stageproof.runtime.errors import ExportError


@dataclass(frozen=True)
class Found:
    """The layers with weights (convolutions and matrix products) of a built file, by the type they compute from."""

    layers: dict[str, int]
    """Such as ``{"int8": 50, "fp32": 5}``."""

    @classmethod
    def count(cls, types: list[str]) -> Found:
        """From the type of each layer."""
        return cls(dict(Counter(types).most_common()))

    @property
    def precision(self) -> str:
        """The type of most layers; ``none`` when the file has none."""
        return next(iter(self.layers), "none")

    def __str__(self) -> str:
        return ", ".join(f"{count} layers in {name}" for name, count in self.layers.items()) or "no layer with weights"


def assert_precision(found: Found, wanted: str, file: str) -> None:
    """Raise ExportError unless most layers of the file are in the precision that it claims."""
    if found.layers.get(wanted, 0) * 2 <= sum(found.layers.values()):
        raise ExportError(
            f"{file} was to be {wanted}, but the built file has {found}. It is {found.precision}: not added."
        )
