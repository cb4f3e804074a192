"""`ModelInfo`: labels, input, temperature, digest and thresholds of a model, independent of the artifact format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from stageproof.runtime.errors import BundleError, InputError
from stageproof.runtime.labels import LABELS, LabelSet, label_set
from stageproof.runtime.networks.spec import HEADS, NetworkSpec, default_head, is_head
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.serialization.digests import DIGEST
from stageproof.runtime.serialization.json_fields import exactly, field, number, parse, text
from stageproof.runtime.study import StudyRule

KEYS = ("architecture", "digest", "labels", "clinical_order", "input", "temperature", "abstain_below")
"""Required keys of a model's description in the manifest and in an artifact; `ModelInfo.to_dict` writes all of them."""
OPTIONAL = ("positive", "study", "head")
"""positive: absent in version 0.1, whose positive classes are the usual ones. study: absent in version 0.1, and where
too few patients were held out to fit a study rule. head: absent where it is the architecture's default, so that earlier
versions read such descriptions."""


@dataclass(frozen=True)
class ModelInfo:
    """The metadata needed to run an artifact and interpret its outputs."""

    architecture: str
    digest: str
    """SHA-256 of the reference weights, hexadecimal."""
    labels: tuple[str, ...]
    """Class names, in the order of the model's outputs."""
    classes: LabelSet
    """The same classes in clinical order, and which of them are positive."""
    input: InputSpec
    temperature: float = 1.0
    """Divisor of the logits before softmax (Guo et al. 2017)."""
    abstain_below: float = 0.0
    """Abstention threshold on the calibrated probability of the most probable class; 0: never abstain."""
    study: StudyRule | None = None
    """How slices are combined into a study's probability; None: their mean, as in version 0.1."""
    head: str | None = None
    """Head of the network, one of `runtime.networks.spec.HEADS`; None: the default of its architecture."""

    positive_recorded: bool = dataclass_field(default=True, compare=False, repr=False)
    """Whether the description has ``positive``; False in version 0.1."""

    @property
    def network(self) -> NetworkSpec:
        """What the network is rebuilt from."""
        spec = self.input
        return NetworkSpec.of(self.architecture, len(self.labels), spec.channels, self.head, spec.height)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {
            "architecture": self.architecture,
            "digest": self.digest,
            "labels": list(self.labels),
            **self.classes.to_dict(),
            "input": self.input.to_dict(),
            "temperature": self.temperature,
            "abstain_below": self.abstain_below,
            **({} if self.study is None else {"study": self.study.to_dict()}),
            **({} if self.head is None else {"head": self.head}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> ModelInfo:
        """The model described by `data`; additional keys, as in the record of a run, are ignored.

        Raises BundleError, naming `where`, for missing keys or invalid values.
        """
        labels = tuple(field(data, "labels", list, where))
        temperature = number(data, "temperature", where)
        if not 0 < temperature < float("inf"):
            raise BundleError(f"{where}: temperature is {temperature}, expected a positive number.")
        abstain_below = number(data, "abstain_below", where, 0.0)
        if not 0 <= abstain_below < 1:
            raise BundleError(f"{where}: abstain_below is {abstain_below}, expected 0 or more and below 1.")
        return cls(
            architecture=text(data, "architecture", where),
            digest=text(data, "digest", where),
            labels=labels,
            classes=label_set_in(data, where),
            input=_input(field(data, "input", dict, where), where),
            temperature=temperature,
            abstain_below=abstain_below,
            study=_study(data, len(labels), where),
            head=_head(data, where),
            positive_recorded="positive" in data,
        )

    @classmethod
    def from_exact(cls, data: Mapping[str, Any], where: str) -> ModelInfo:
        """As `from_dict`, for an object that `to_dict` wrote. Raises BundleError also for missing or additional keys,
        or from which the clinical order is missing."""
        exactly(data, where, KEYS, OPTIONAL)
        model = cls.from_dict(data, where)
        if not DIGEST.fullmatch(model.digest):
            raise BundleError(f"{where}: 'digest' is {model.digest!r}, expected 64 hexadecimal digits. Export again.")
        return model

    @classmethod
    def from_json(cls, text: str, where: str) -> ModelInfo:
        """As `from_dict`, from the JSON text in an artifact's metadata."""
        return cls.from_dict(parse(text, where), where)


def label_set_in(data: Mapping[str, Any], where: str) -> LabelSet:
    """The label set of an object with ``labels`` and, optionally, ``clinical_order`` and ``positive``: the record of a
    run, the metadata of an artifact, or a model in a manifest.

    Raises BundleError, naming `where`, unless the labels are the classes of a label set, each once.
    """
    labels = field(data, "labels", list, where)
    order, positive = data.get("clinical_order"), data.get("positive")
    for name, value in (("labels", labels), ("clinical_order", order), ("positive", positive)):
        absent = value is None and name not in data
        if not absent and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise BundleError(f"{where}: '{name}' is {value!r}, expected a list of class names. Export again.")
    if order is None:
        order = _usual_order(labels)
    try:
        classes = label_set(order, positive or ())
    except InputError as error:
        raise BundleError(f"{where}: {error} Copy the bundle again, or export again.") from error
    if sorted(labels) != sorted(classes.names) or list(classes.names) != list(order):
        raise BundleError(
            f"{where}: labels are {labels}, expected the classes of its clinical order, {list(classes.names)}, "
            "each once. Copy the bundle again, or export again."
        )
    if positive is not None and list(classes.positive) != positive:
        raise BundleError(
            f"{where}: 'positive' is {positive}, expected one or more of {list(classes.names)}, in this order. Copy "
            "the bundle again, or export again."
        )
    return classes


def _usual_order(labels: Sequence[str]) -> Sequence[str]:
    """The order of the four stages for labels without a stated one, as in runs of version 0.1; else their own."""
    return [stage for stage in LABELS if stage in labels] if set(labels) <= set(LABELS) else labels


def _study(data: Mapping[str, Any], classes: int, where: str) -> StudyRule | None:
    if "study" not in data:
        return None
    return StudyRule.from_dict(field(data, "study", dict, where), classes, f"{where}: study")


def _head(data: Mapping[str, Any], where: str) -> str | None:
    """None for the default head, so that descriptions of the same network are equal."""
    if "head" not in data:
        return None
    head = text(data, "head", where)
    if not is_head(head):
        raise BundleError(f"{where}: 'head' is {head!r}, expected {' or '.join(HEADS)}. Export again.")
    return None if head == default_head(text(data, "architecture", where)) else head


def _input(data: dict[str, Any], where: str) -> InputSpec:
    try:
        return InputSpec.from_dict(data)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error
