"""`Built`, the result of building one artifact, and `Found`, its precision, counted from the layers in the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stageproof.runtime.bundle.manifest import TENSOR
from stageproof.runtime.errors import ExportError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Found:
    """Number of layers with weights (convolutions and matrix products) in a built file, by input or weight type."""

    layers: dict[str, int]
    """Such as ``{"int8": 50, "fp32": 5}``."""

    @classmethod
    def count(cls, types: list[str]) -> Found:
        """The counts, from the type of each layer."""
        return cls(dict(Counter(types).most_common()))

    @classmethod
    def of(cls, weights: Iterable[torch.dtype]) -> Found:
        """The counts, from the type of the weight of each layer."""
        from stageproof.export.graphs.half_precision import DTYPES  # imports torch

        names = {dtype: name for name, dtype in DTYPES.items()}
        return cls.count([names.get(dtype, "other") for dtype in weights])

    @property
    def precision(self) -> str:
        """The most frequent type; ``none`` for a file without layers."""
        return next(iter(self.layers), "none")

    def __str__(self) -> str:
        return ", ".join(f"{count} layers in {name}" for name, count in self.layers.items()) or "no layer with weights"


@dataclass(frozen=True)
class Built:
    """The files of one artifact and their metadata."""

    files: dict[str, str]
    """File name → SHA-256 of its content in memory. The artifact itself first, then additional files."""
    requires: dict[str, str] = field(default_factory=dict)
    """Requirements of a compiled artifact, such as GPU and engine version, for the manifest."""
    takes: str = TENSOR
    """Input of the artifact, for the manifest."""
    quantisation: dict[str, Any] | None = None
    """Data that an 8-bit artifact was calibrated and its layers selected on, JSON-ready."""
    found: Found | None = None
    """Precision counted while building, for formats whose `inspect` cannot open the file on this machine."""


def assert_precision(found: Found, wanted: str, file: str) -> None:
    """Raise ExportError unless more than half of the layers have the precision `wanted`."""
    if found.layers.get(wanted, 0) * 2 <= sum(found.layers.values()):
        raise ExportError(
            f"{file} has {found}; expected {wanted} for more than half of the layers. Not added to the bundle."
        )
