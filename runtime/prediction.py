"""`Prediction`: what the model says of one image, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runtime.labels import CDR


@dataclass(frozen=True)
class Timings:
    """Wall-clock milliseconds of each step. In a batch, inference is the batch's time divided by its images."""

    read_ms: float
    preprocess_ms: float
    inference_ms: float


@dataclass(frozen=True)
class Prediction:
    """One image's result. For research: not a diagnosis."""

    label: str
    """The most probable class, a canonical name."""
    cdr: float
    """Clinical Dementia Rating that the class stands for: 0, 0.5, 1 or 2."""
    probability: float
    """Of `label`, in [0, 1]."""
    probabilities: Mapping[str, float]
    """By class, in clinical order; they sum to 1."""
    backend: str
    precision: str
    model_digest: str
    """SHA-256 of the reference weights the artifact was made from."""
    timings: Timings

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {**asdict(self), "probabilities": dict(self.probabilities)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prediction:
        """The prediction that `to_dict` wrote."""
        return cls(**{**data, "timings": Timings(**data["timings"])})


def stage_of(label: str) -> float:
    """Clinical Dementia Rating of a canonical label."""
    return CDR[label]
