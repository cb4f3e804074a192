"""The actual precision of a built artifact, counted from the layers in the file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from stageproof.runtime.errors import ExportError


@dataclass(frozen=True)
class Found:
    """Number of layers with weights (convolutions and matrix products) in a built file, by input or weight type."""

    layers: dict[str, int]
    """Such as ``{"int8": 50, "fp32": 5}``."""

    @classmethod
    def count(cls, types: list[str]) -> Found:
        """The counts, from the type of each layer."""
        return cls(dict(Counter(types).most_common()))

    @property
    def precision(self) -> str:
        """The most frequent type; ``none`` for a file without layers."""
        return next(iter(self.layers), "none")

    def __str__(self) -> str:
        return ", ".join(f"{count} layers in {name}" for name, count in self.layers.items()) or "no layer with weights"


def assert_precision(found: Found, wanted: str, file: str) -> None:
    """Raise ExportError unless more than half of the layers have the precision `wanted`."""
    if found.layers.get(wanted, 0) * 2 <= sum(found.layers.values()):
        raise ExportError(
            f"{file} has {found}; expected {wanted} for more than half of the layers. Not added to the bundle."
        )
