"""`Prediction` and `StudyPrediction`: what the model says of an image, and of a patient, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from runtime.labels import CDR

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


@dataclass(frozen=True)
class StudyPrediction:
    """One patient's result, from many slices. For research: not a diagnosis.

    The probabilities are the mean over the slices with status ``ok`` or ``abstained``.
    """

    status: Status
    """rejected: no slice was usable. abstained: the mean is not sure enough. ok: there is a label."""
    label: str | None
    cdr: float | None
    probability: float | None
    probabilities: Mapping[str, float]
    """By class, in clinical order; they sum to 1. Empty where every slice was rejected."""
    spread: Mapping[str, float]
    """By class: standard deviation of the probability over the slices used. Slices of one head are not independent, so
    this says how far they disagree, and is no confidence interval."""
    agreement: float | None
    """Share of the slices used whose own most probable class is that of the mean; None where none was used."""
    reason: str
    used: tuple[int, ...]
    """Positions of the slices that the mean is over, from 0."""
    rejected: tuple[int, ...]
    """Positions of the slices that were rejected, from 0."""
    slices: tuple[Prediction, ...] = field(repr=False)
    """Every slice's own result, in the order given."""

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


def study(slices: Sequence[Prediction], abstain_below: float = 0.0) -> StudyPrediction:
    """The patient-level result of the slices of one patient."""
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
        )
    names = list(slices[used[0]].probabilities)
    mean = {name: sum(slices[i].probabilities[name] for i in used) / len(used) for name in names}
    spread = {
        name: (sum((slices[i].probabilities[name] - mean[name]) ** 2 for i in used) / len(used)) ** 0.5
        for name in names
    }
    label = max(names, key=mean.__getitem__)
    agreeing = sum(max(names, key=slices[i].probabilities.__getitem__) == label for i in used)
    sure = mean[label] >= abstain_below
    return StudyPrediction(
        status="ok" if sure else "abstained",
        label=label if sure else None,
        cdr=stage_of(label) if sure else None,
        probability=mean[label] if sure else None,
        probabilities=mean,
        spread=spread,
        agreement=agreeing / len(used),
        reason="" if sure else unsure(mean[label], abstain_below),
        used=used,
        rejected=rejected,
        slices=tuple(slices),
    )


def unsure(probability: float, abstain_below: float) -> str:
    """The reason of an abstention."""
    return f"the most probable class has {probability:.1%}, below the {abstain_below:.1%} this model answers from"
