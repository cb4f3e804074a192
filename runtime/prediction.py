"""`Prediction` and `StudyPrediction`: the results for an image and for a patient, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np

from stageproof.runtime.labels import LabelSet, recognise
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.study import StudyRule, evidence_of

Status: TypeAlias = Literal["ok", "abstained", "rejected"]
"""ok: a label is reported. abstained: an in-distribution image whose most probable class is below the threshold.
rejected: unreadable or out of distribution."""


@dataclass(frozen=True)
class Timings:
    """Wall-clock milliseconds of each step. In a batch, inference_ms is the batch's time divided by its images."""

    read_ms: float
    preprocess_ms: float
    """Preprocessing and guard."""
    inference_ms: float


@dataclass(frozen=True)
class Prediction:
    """The result for one image. For research: not a diagnosis.

    `label`, `cdr` and `probability` are None unless `status` is ``ok``, so that no class is displayed by mistake.
    """

    status: Status
    label: str | None
    """The most probable class, a canonical name."""
    cdr: float | None
    """Clinical Dementia Rating of the class, such as 0.5; None also where the label set does not define it."""
    probability: float | None
    """Calibrated probability of `label`, in [0, 1]."""
    probabilities: Mapping[str, float]
    """Calibrated probability of each class, in clinical order; they sum to 1. Empty if the image was rejected."""
    code: str
    """Reason for a status other than ``ok``, for programs: ``unreadable``, ``unsure``, or the name of the guard score
    above its limit. Empty for ``ok``."""
    reason: str
    """Reason for a status other than ``ok``, for people, with what to do. Empty for ``ok``."""
    guard: Mapping[str, float] | Literal["none"]
    """The guard's scores; empty if the image could not be read; ``"none"`` if no guard checked the image, as with a
    lone artifact: the image may then show anything."""
    transforms: tuple[str, ...]
    """Transforms applied to a DICOM file's stored values, in order; empty for other images."""
    warnings: tuple[str, ...]
    """Notes on the image for people, such as a DICOM modality other than MR."""
    backend: str
    precision: str
    model_digest: str
    """SHA-256 of the reference weights that the artifact was exported from."""
    timings: Timings

    def __post_init__(self) -> None:
        object.__setattr__(self, "probabilities", MappingProxyType(dict(self.probabilities)))
        if not isinstance(self.guard, str):
            object.__setattr__(self, "guard", MappingProxyType(dict(self.guard)))

    def __reduce__(self) -> tuple[Any, ...]:
        return Prediction.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {
            **self.__dict__,
            "probabilities": dict(self.probabilities),
            "guard": self.guard if isinstance(self.guard, str) else dict(self.guard),
            "transforms": list(self.transforms),
            "warnings": list(self.warnings),
            "timings": asdict(self.timings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Prediction:
        """The prediction that `to_dict` wrote."""
        lists = {name: tuple(data[name]) for name in ("transforms", "warnings")}
        return cls(**{**data, **lists, "timings": Timings(**data["timings"])})


Method: TypeAlias = Literal["calibrated", "mean"]
"""How the probabilities of a study were computed: see `StudyPrediction.method`."""


@dataclass(frozen=True)
class StudyPrediction:
    """The result for one patient, from many slices. For research: not a diagnosis.

    The probabilities are computed from the slices with status ``ok`` or ``abstained``, by `method`.
    """

    status: Status
    """ok: a label is reported. abstained: the most probable class is below the threshold. rejected: no usable slice."""
    label: str | None
    cdr: float | None
    probability: float | None
    probabilities: Mapping[str, float]
    """Probability of each class, in clinical order; they sum to 1. Empty if every slice was rejected."""
    spread: Mapping[str, float]
    """Standard deviation of each class's probability over the used slices. Slices of one head are not independent: this
    measures their disagreement and is not a confidence interval."""
    agreement: float | None
    """Fraction of the used slices whose most probable class is the study's; None if no slice was used."""
    reason: str
    used: tuple[int, ...]
    """Indices, from 0, of the slices that the probabilities are computed from."""
    rejected: tuple[int, ...]
    """Indices, from 0, of the rejected slices."""
    slices: tuple[Prediction, ...] = field(repr=False)
    """The prediction for each slice, in input order."""
    method: Method = "mean"
    """calibrated: a model over the log-probabilities of all slices, fitted on held-out patients (`runtime.study`).
    mean: the mean of the slices' probabilities, not calibrated for studies; for bundles of version 0.1 and bundles
    whose run held out too few patients."""

    def __post_init__(self) -> None:
        for name in ("probabilities", "spread"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __reduce__(self) -> tuple[Any, ...]:
        return StudyPrediction.from_dict, (self.to_dict(),)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` reads it back exactly."""
        return {
            **self.__dict__,
            "probabilities": dict(self.probabilities),
            "spread": dict(self.spread),
            "used": list(self.used),
            "rejected": list(self.rejected),
            "slices": [prediction.to_dict() for prediction in self.slices],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudyPrediction:
        """The study that `to_dict` wrote."""
        slices = tuple(Prediction.from_dict(entry) for entry in data["slices"])
        return cls(**{**data, "used": tuple(data["used"]), "rejected": tuple(data["rejected"]), "slices": slices})


def study(
    slices: Sequence[Prediction],
    abstain_below: float = 0.0,
    rule: StudyRule | None = None,
    *,
    labels: Sequence[str] = (),
    temperature: float = 1.0,
    classes: LabelSet | None = None,
) -> StudyPrediction:
    """The patient-level result from the slices of one patient.

    abstain_below: abstention threshold; the one in `rule` is ignored.
    rule: the model's study rule; None averages the slices' probabilities.
    labels, temperature: with a rule, the order of the model's outputs and the temperature of the slices' probabilities.
    classes: the model's label set, for the Clinical Dementia Rating; None: the built-in set with the slices' classes.
    """
    method: Method = "mean" if rule is None else "calibrated"
    used = tuple(index for index, one in enumerate(slices) if one.probabilities)
    rejected = tuple(index for index, one in enumerate(slices) if not one.probabilities)
    given: dict[str, Any] = {"used": used, "rejected": rejected, "slices": tuple(slices), "method": method}
    if not used:
        why = f"all {len(slices)} slices were rejected; see the reason of each slice"
        return StudyPrediction("rejected", None, None, None, {}, {}, agreement=None, reason=why, **given)
    names = list(slices[used[0]].probabilities)
    mean = {name: sum(slices[i].probabilities[name] for i in used) / len(used) for name in names}
    spread = {
        name: (sum((slices[i].probabilities[name] - mean[name]) ** 2 for i in used) / len(used)) ** 0.5
        for name in names
    }
    answer = mean if rule is None else _by_rule([slices[i] for i in used], rule, labels or names, temperature, names)
    label = max(names, key=answer.__getitem__)
    agreeing = sum(max(names, key=slices[i].probabilities.__getitem__) == label for i in used)
    sure = answer[label] >= abstain_below
    classes = classes or recognise(names)
    return StudyPrediction(
        status="ok" if sure else "abstained",
        label=label if sure else None,
        cdr=classes.cdr(label) if sure and classes else None,
        probability=answer[label] if sure else None,
        probabilities=answer,
        spread=spread,
        agreement=agreeing / len(used),
        reason="" if sure else unsure(answer[label], abstain_below),
        **given,
    )


def study_by(model: ModelInfo, slices: Sequence[Prediction], abstain_below: float | None = None) -> StudyPrediction:
    """The patient-level result by the model's study rule. abstain_below: None takes the model's study threshold."""
    rule = model.study
    if abstain_below is None:
        abstain_below = model.abstain_below if rule is None else rule.abstain_below
    return study(slices, abstain_below, rule, labels=model.labels, temperature=model.temperature, classes=model.classes)


def _by_rule(
    used: Sequence[Prediction], rule: StudyRule, labels: Sequence[str], temperature: float, names: Sequence[str]
) -> dict[str, float]:
    """The rule's probability of each class, in the order of `names`, from the mean evidence of the slices."""
    chances = np.array([[one.probabilities[label] for label in labels] for one in used])
    found = rule.probabilities(evidence_of(chances, temperature).mean(0, keepdims=True))[0].tolist()
    by_label = dict(zip(labels, found, strict=True))
    return {name: by_label[name] for name in names}


def unsure(probability: float, abstain_below: float) -> str:
    """The reason of an abstention, for people."""
    return f"the most probable class has probability {probability:.1%}, below the threshold of {abstain_below:.1%}"
