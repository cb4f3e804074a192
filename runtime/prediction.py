"""`Prediction` and `StudyPrediction`: what the model says of an image, and of a patient, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np

from stageproof.runtime.labels import CDR
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.study import StudyRule, evidence_of

Status: TypeAlias = Literal["ok", "abstained", "rejected"]
"""ok: there is a label. abstained: a slice the model knows, not surely enough. rejected: nothing it may speak about."""


@dataclass(frozen=True)
class Timings:
    """Wall-clock milliseconds of each step. In a batch, inference is the batch's time divided by its images."""

    read_ms: float
    preprocess_ms: float
    """Preprocessing and guard."""
    inference_ms: float


@dataclass(frozen=True)
class Prediction:
    """One image's result. For research: not a diagnosis.

    `label`, `cdr` and `probability` are None unless `status` is ``ok``, so that nobody shows a stage by oversight.
    """

    status: Status
    label: str | None
    """The most probable class, a canonical name."""
    cdr: float | None
    """Clinical Dementia Rating that the class stands for: 0, 0.5, 1 or 2."""
    probability: float | None
    """Of `label`, calibrated, in [0, 1]."""
    probabilities: Mapping[str, float]
    """By class, calibrated, in clinical order; they sum to 1. Empty where the image was rejected."""
    code: str
    """Why not ``ok``, for programs: ``unreadable``, ``unsure``, or the guard's score that was too high. Else empty."""
    reason: str
    """Why not ``ok``, for people, with what to do. Else empty."""
    guard: Mapping[str, float] | Literal["none"]
    """The guard's scores, empty where the image could not be read; ``"none"`` where no guard checked the image, as with
    a lone artifact: then it may show anything."""
    transforms: tuple[str, ...]
    """What was done to a DICOM file's stored values, in order; empty for other images."""
    warnings: tuple[str, ...]
    """What a person should know of the image, such as a DICOM modality other than MR."""
    backend: str
    precision: str
    model_digest: str
    """SHA-256 of the reference weights the artifact was made from."""
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
"""Where the probabilities of a study come from: see `StudyPrediction.method`."""


@dataclass(frozen=True)
class StudyPrediction:
    """One patient's result, from many slices. For research: not a diagnosis.

    The probabilities rest on the slices with status ``ok`` or ``abstained``; `method` says how.
    """

    status: Status
    """rejected: no slice was usable. abstained: the study is not sure enough. ok: there is a label."""
    label: str | None
    cdr: float | None
    probability: float | None
    probabilities: Mapping[str, float]
    """By class, in clinical order; they sum to 1. Empty where every slice was rejected."""
    spread: Mapping[str, float]
    """By class: standard deviation of the probability over the slices used. Slices of one head are not independent, so
    this says how far they disagree, and is no confidence interval."""
    agreement: float | None
    """Share of the slices used whose own most probable class is that of the study; None where none was used."""
    reason: str
    used: tuple[int, ...]
    """Positions of the slices that the probabilities rest on, from 0."""
    rejected: tuple[int, ...]
    """Positions of the slices that were rejected, from 0."""
    slices: tuple[Prediction, ...] = field(repr=False)
    """Every slice's own result, in the order given."""
    method: Method = "mean"
    """calibrated: a model over the evidence of all slices, fitted on patients (`runtime.study`). mean: the mean of the
    slices' probabilities, as bundles of 0.1 have it and those whose run held out too few patients; it was not
    calibrated for studies."""

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


def stage_of(label: str) -> float:
    """Clinical Dementia Rating of a canonical label."""
    return CDR[label]


def study(
    slices: Sequence[Prediction],
    abstain_below: float = 0.0,
    rule: StudyRule | None = None,
    *,
    labels: Sequence[str] = (),
    temperature: float = 1.0,
) -> StudyPrediction:
    """The patient-level result of the slices of one patient.

    abstain_below: least probability to answer from; that of `rule` is not looked at.
    rule: of the model; None takes the mean of the slices' probabilities.
    labels, temperature: with a rule, the order of the model's outputs, and what the slices' logits were divided by.
    """
    method: Method = "mean" if rule is None else "calibrated"
    used = tuple(index for index, one in enumerate(slices) if one.probabilities)
    rejected = tuple(index for index, one in enumerate(slices) if not one.probabilities)
    if not used:
        return StudyPrediction(
            status="rejected",
            label=None,
            cdr=None,
            probability=None,
            probabilities={},
            spread={},
            agreement=None,
            reason=f"all {len(slices)} slices were rejected; each says why",
            used=used,
            rejected=rejected,
            slices=tuple(slices),
            method=method,
        )
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
    return StudyPrediction(
        status="ok" if sure else "abstained",
        label=label if sure else None,
        cdr=stage_of(label) if sure else None,
        probability=answer[label] if sure else None,
        probabilities=answer,
        spread=spread,
        agreement=agreeing / len(used),
        reason="" if sure else unsure(answer[label], abstain_below),
        used=used,
        rejected=rejected,
        slices=tuple(slices),
        method=method,
    )


def study_by(model: ModelInfo, slices: Sequence[Prediction], abstain_below: float | None = None) -> StudyPrediction:
    """The patient-level result as `model` has it. abstain_below: None takes the model's own threshold for studies."""
    rule = model.study
    if abstain_below is None:
        abstain_below = model.abstain_below if rule is None else rule.abstain_below
    return study(slices, abstain_below, rule, labels=model.labels, temperature=model.temperature)


def _by_rule(
    used: Sequence[Prediction], rule: StudyRule, labels: Sequence[str], temperature: float, names: Sequence[str]
) -> dict[str, float]:
    """By class, in the order of `names`: the rule's probabilities of the slices' mean evidence."""
    chances = np.array([[one.probabilities[label] for label in labels] for one in used])
    found = rule.probabilities(evidence_of(chances, temperature).mean(0, keepdims=True))[0].tolist()
    by_label = dict(zip(labels, found, strict=True))
    return {name: by_label[name] for name in names}


def unsure(probability: float, abstain_below: float) -> str:
    """The reason of an abstention."""
    return f"the most probable class has {probability:.1%}, below the {abstain_below:.1%} this model answers from"
