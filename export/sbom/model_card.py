"""The `modelCard` of CycloneDX 1.6: parameters, data, figures with intervals, intended use and limitations of a model.

Figures are those of the run's `evaluation.json`, digit for digit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stageproof.runtime.bundle.manifest import Manifest
from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.text.hints import command
from stageproof.train.runs.record import read_evaluation, read_record

logger = logging.getLogger(__name__)

EVALUATED = ("slices", "patients", "calibration", "abstention")
"""Parts of `evaluation.json` whose figures are listed. The decision curves and predictive values by prevalence are not:
they are functions of sensitivity and specificity."""

_FIGURE = {"value", "low", "high"}
_USERS = ("Researchers and engineers who read the limitations below.",)
_USES = (
    "Research on classifying single axial brain-MRI slices by diagnosis or stage, on exporting such networks, and on "
    "whether published metrics hold for patients outside the training set.",
)
_LIMITATIONS = (
    "Research use only: not a medical device, not for diagnosis, screening, prognosis, triage or any other decision "
    "about a patient.",
    "Other diseases, such as a tumour, a stroke or another dementia, are assigned one of the same classes.",
    "Slices in other planes, at other levels, from other sequences or prepared differently from the training set are "
    "out of distribution.",
    "No figure comes from a prospective or external study.",
)
_RISKS = (
    {
        "name": "A person decides about a patient by the predicted class.",
        "mitigationStrategy": "None in the model: every page and card states that it is for research only.",
    },
    {
        "name": "Scanner and site of the training slices are unknown, so the model may be worse for some people.",
        "mitigationStrategy": "The guard rejects images unlike the training slices; it does not detect people unlike "
        "those in the training set.",
    },
)


def model_card(manifest: Manifest, run: Path | None) -> dict[str, Any]:
    """The `modelCard` object of the bundle's model. run: the run directory it was exported from; None for a
    checkpoint, or where it is not there.

    Without an evaluation of exactly this model, there are no figures, the limitations say so, and it is logged why.
    """
    evaluation, why_none = _evaluation(manifest, run)
    limitations = [*_LIMITATIONS, *([why_none] if why_none else []), *evaluation.get("warnings", ())]
    card: dict[str, Any] = {
        "bom-ref": "model-card",
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": f"image classification: {', '.join(manifest.model.classes.names)}",
            "modelArchitecture": manifest.model.architecture,
            "datasets": list(_datasets(manifest, evaluation)),
            "inputs": [{"format": _input(manifest.model)}],
            "outputs": [{"format": f"probabilities of {', '.join(manifest.model.labels)}; a class or an abstention"}],
        },
        "considerations": {
            "users": list(_USERS),
            "useCases": list(_USES),
            "technicalLimitations": limitations,
            "ethicalConsiderations": [dict(risk) for risk in _RISKS],
        },
        "properties": [
            {"name": f"stageproof:{name}", "value": value} for name, value in _properties(manifest, evaluation)
        ],
    }
    if metrics := [metric(path, figure) for path, figure in figures(evaluation)]:
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    return card


def figures(evaluation: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """(path, figure) of every figure in the parts `EVALUATED` of the content of `evaluation.json`."""

    def below(path: tuple[str, ...], found: Any) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
        if isinstance(found, Mapping):
            if set(found) >= _FIGURE:
                yield path, found
                return
            for key, value in found.items():
                yield from below((*path, str(key)), value)

    for part in EVALUATED:
        yield from below((part,), evaluation.get(part))


def metric(path: tuple[str, ...], figure: Mapping[str, Any]) -> dict[str, Any]:
    """A `performanceMetric`: the figure's name without its class; the part of the evaluation and the class as its
    `slice`. Numbers are texts that `float` reads back exactly; what is not estimable has no value."""
    part, *names = path
    of_class = names[1] if names[0] == "classes" else None
    found: dict[str, Any] = {
        "type": ".".join(names[2:] if of_class is not None else names),
        "slice": f"{part}, class {of_class}" if of_class is not None else part,
    }
    if figure["value"] is not None:
        found["value"] = repr(float(figure["value"]))
    if figure["low"] is not None and figure["high"] is not None:
        bounds = {"lowerBound": repr(float(figure["low"])), "upperBound": repr(float(figure["high"]))}
        found["confidenceInterval"] = bounds
    return found


def _evaluation(manifest: Manifest, run: Path | None) -> tuple[dict[str, Any], str]:
    """(the evaluation of this model, ""), or ({}, why there is none)."""
    if run is None and "run" in manifest.provenance:
        return {}, "The bundle does not record how the model was evaluated."
    if run is None:
        return {}, "Trained by other code: its accuracy on new patients was not measured here."
    model = manifest.model
    record = read_record(run)
    if "evaluated" not in record:
        return {}, "The run was not evaluated: its accuracy on new patients is unknown."
    advice = f"Evaluate again: {command('train.evaluate', run)}"
    try:
        found = read_evaluation(run / "evaluation")
    except CheckpointError as error:
        logger.warning(f"the bill of materials has no figures: {error} {advice}")
        return {}, "The evaluation of the run is missing."
    same = found.get("weights_sha256") == model.digest and found.get("created") == record["evaluated"]
    if not same or ((found.get("calibration") or {}).get("temperature") or 1.0) != model.temperature:
        logger.warning(
            f"the bill of materials has no figures: {run / 'evaluation'} is not the evaluation that calibrated this "
            f"model. {advice}"
        )
        return {}, "The evaluation beside the run describes another model."
    return found, ""


def _datasets(manifest: Manifest, evaluation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The training and the held-out slices, as far as the run knows them; nothing for a checkpoint."""
    provenance = manifest.provenance
    if "dataset" not in provenance:
        return
    data = evaluation.get("data") or {}
    for part, counts in (("training", data.get("training") or {}), ("held out", data)):
        split = provenance.get("split") or {}
        facts = {
            "sha256": provenance.get("dataset_digest"),
            "split-by": split.get("by"),
            "fold": split.get("fold"),
            "slices": counts.get("slices"),
            "patients": counts.get("patients"),
            **{f"slices:{label}": count for label, count in (counts.get("slices_by_class") or {}).items()},
        }
        properties = [
            {"name": f"stageproof:{name}", "value": str(value)} for name, value in facts.items() if value is not None
        ]
        yield {
            "type": "dataset",
            "name": f"{provenance['dataset']}, {part}",
            "contents": {"properties": properties},
            "sensitiveData": ["none: synthetic"] if str(provenance["dataset"]).startswith("phantom(") else ["health"],
        }


def _input(model: ModelInfo) -> str:
    spec = model.input
    return (
        f"image: an encoded file, DICOM, or uint8 pixels; preprocessed to float32 ({spec.channels}, {spec.height}, "
        f"{spec.width})"
    )


def _properties(manifest: Manifest, evaluation: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    model, method = manifest.model, evaluation.get("method") or {}
    yield "weights-sha256", model.digest
    yield "labels", ", ".join(model.labels)
    yield "positive", ", ".join(model.classes.positive)
    yield "temperature", repr(model.temperature)
    yield "abstain-below", repr(model.abstain_below)
    yield "guard", "yes" if manifest.guard else "no"
    for name, value in (
        ("labels-from", manifest.labels_from),
        ("evaluated", evaluation.get("created")),
        ("interval-level", method.get("level")),
        ("interval-method", method.get("intervals")),
    ):
        if value is not None:
            yield name, str(value)
    for path, figure in figures(evaluation):
        if figure["value"] is None:
            yield f"not-estimable:{'.'.join(path)}", str(figure.get("why"))
