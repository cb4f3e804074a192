"""`StudyRule`: the calibrated probability of a study, from its slices. Stored in the bundle as `ModelInfo.study`.

Slices of one head are correlated: the mean of their calibrated probabilities is underconfident (Ranjan and Gneiting
2010), and their product is overconfident. The evidence of a study is the mean over its slices of the network's
log-probabilities. `intercepts` and `slope`, fitted on patients that the network was not trained on, map it to a
probability: softmax(intercepts + slope × evidence).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stageproof.runtime.errors import BundleError
from stageproof.runtime.serialization.json_fields import exactly, is_number, number
from stageproof.runtime.softmax import probabilities

KEYS = ("intercepts", "slope", "abstain_below")
FLOOR = math.log(1e-12)
"""Lower bound of a slice's evidence for a class, in nats: one slice with an extreme logit cannot decide a study."""


@dataclass(frozen=True)
class StudyRule:
    """A multinomial logistic model of a study's class, given the mean evidence of its slices."""

    intercepts: tuple[float, ...]
    """One per label, in the order of the model's outputs; they sum to 0."""
    slope: float
    """Coefficient of the mean evidence, at least 0; 0 where the network's outputs carry no information on patients."""
    abstain_below: float = 0.0
    """Abstention threshold on the probability of the most probable class; 0: never abstain."""

    def probabilities(self, evidence: np.ndarray) -> np.ndarray:
        """(N, classes) float64 probabilities, rows sum to 1, from (N, classes) mean evidence (see `evidence_of`)."""
        return probabilities(np.asarray(self.intercepts) + self.slope * evidence)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {"intercepts": list(self.intercepts), "slope": self.slope, "abstain_below": self.abstain_below}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], classes: int, where: str) -> StudyRule:
        """The rule that `to_dict` wrote. Raises BundleError, naming `where`, for missing or invalid values."""
        exactly(data, where, KEYS)
        intercepts = data["intercepts"]
        numbers = isinstance(intercepts, list) and all(is_number(one) for one in intercepts)
        if not numbers or len(intercepts) != classes:
            raise BundleError(f"{where}: 'intercepts' is not a list of {classes} finite numbers, one per label.")
        slope = number(data, "slope", where)
        if slope < 0:
            raise BundleError(f"{where}: slope is {slope}, expected 0 or more.")
        below = number(data, "abstain_below", where)
        if not 0 <= below < 1:
            raise BundleError(f"{where}: abstain_below is {below}, expected 0 or more and below 1.")
        return cls(tuple(map(float, intercepts)), slope, below)


def evidence_of(probabilities: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(N, classes) float64 evidence of slices, in nats: log-probabilities at temperature 1, at least `FLOOR`.

    probabilities: (N, classes) at `temperature`. The temperature is undone, so that a rule does not depend on it.
    """
    logits = temperature * np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    logits -= logits.max(1, keepdims=True)
    return np.maximum(logits - np.log(np.exp(logits).sum(1, keepdims=True)), FLOOR)
