"""What is known of a model apart from the file it stands in: labels, input, temperature, digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.errors import BundleError
from runtime.fields import field, number, parse
from runtime.labels import canonical_label, clinical_order
from runtime.preprocess import InputSpec


@dataclass(frozen=True)
class ModelInfo:
    """What an artifact needs to be understood on its own."""

    architecture: str
    digest: str
    """SHA-256 of the reference weights, hexadecimal."""
    labels: tuple[str, ...]
    """Class names in the order of the model's outputs."""
    input: InputSpec
    temperature: float = 1.0
    """Logits are divided by this before softmax (Guo et al. 2017)."""
    abstain_below: float = 0.0
    """A prediction whose calibrated probability is below this abstains; 0 never does."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {
            "architecture": self.architecture,
            "digest": self.digest,
            "labels": list(self.labels),
            "clinical_order": list(clinical_order(self.labels)),
            "input": self.input.to_dict(),
            "temperature": self.temperature,
            "abstain_below": self.abstain_below,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> ModelInfo:
        """The model described by `data`. Raises BundleError, naming `where`, for anything missing or impossible."""
        labels = tuple(field(data, "labels", list, where))
        unknown = [label for label in labels if not isinstance(label, str) or canonical_label(label) != label]
        if len(labels) < 2 or unknown or len(set(labels)) != len(labels):
            raise BundleError(f"{where}: labels are {list(labels)}, expected distinct canonical class names.")
        temperature = number(data, "temperature", where)
        if not 0 < temperature < float("inf"):
            raise BundleError(f"{where}: temperature is {temperature}, expected a positive number.")
        abstain_below = number(data, "abstain_below", where, 0.0)
        if not 0 <= abstain_below < 1:
            raise BundleError(f"{where}: abstain_below is {abstain_below}, expected 0 or more and below 1.")
        return cls(
            architecture=field(data, "architecture", str, where),
            digest=field(data, "digest", str, where),
            labels=labels,
            input=InputSpec.from_dict(field(data, "input", dict, where)),
            temperature=temperature,
            abstain_below=abstain_below,
        )

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelInfo:
        """As `from_dict`, from the text that an artifact carries."""
        return cls.from_dict(parse(text, where), where)
