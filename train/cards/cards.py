"""Model card and dataset card. Every number on them comes from `run.json` or `evaluation.json`.

The templates contain no digit in their prose, so every number on a card can be traced (a test checks it).
"""

from __future__ import annotations

from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from stageproof.train.cards.data import class_counts, image_sizes, patients, patients_from, settings
from stageproof.train.reports.calibration_text import calibration_heads, calibration_rows, guarantee, studies_by
from stageproof.train.reports.clinical_sections import all_sections, demographics, flow_section, reference_standard
from stageproof.train.reports.facts import CardError, Facts
from stageproof.train.reports.formatting import count_heads, people_in, question, unit_of
from stageproof.train.reports.tables import Table, calibration, class_note, classes, metrics
from stageproof.train.reports.templates import markdown


def model_card(record: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """The text of `MODEL_CARD.md`, with front matter for the Hugging Face Hub.

    record: content of `run.json`, with the fitted parameters. evaluation: content of `evaluation.json`.

    Raises CardError for a figure that is missing.
    """
    run, found = Facts("run.json", record), Facts("evaluation.json", evaluation)
    data = ModelCardData(
        language="en",
        library_name="stageproof",
        pipeline_tag="image-classification",
        tags=["medical", "mri", "alzheimer", "research-only"],
        model_name=found("run"),
        eval_results=_results(found),
    )
    names = found.classes.names
    counts = {label: found("data.training.slices_by_class", label) for label in names}
    text = markdown(
        "train/cards/model_card.md.j2",
        **_common(run, found),
        **_calibration(found),
        front_matter=data.to_yaml(),
        flow=flow_section(found),
        training_classes=class_counts(found, found, "data.training"),
        absent=[label for label in names if not counts[label]],
        largest=max(names, key=counts.__getitem__),
        smallest=min(names, key=counts.__getitem__),
        classes=classes(found, "slices"),
        class_note=class_note(unit_of(found("data")), found.classes),
        metrics=metrics(found),
        sections=all_sections(found),
        settings=settings(run),
        intervals_known=bool(count_heads(found("data"))),
    )
    return str(ModelCard(text))


def dataset_card(record: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """The text of `DATASET_CARD.md`, about the data that the run was made with. Arguments and errors as above."""
    run, found = Facts("run.json", record), Facts("evaluation.json", evaluation)
    data = DatasetCardData(
        language="en",
        pretty_name=found("data.source"),
        task_categories=["image-classification"],
        tags=["medical", "mri", "alzheimer"],
    )
    text = markdown(
        "train/cards/dataset_card.md.j2",
        **_common(run, found),
        front_matter=data.to_yaml(),
        patients=patients(run),
        patients_from=patients_from(run),
        all_classes=class_counts(found, run, "data"),
        sections=[reference_standard(found), demographics(found)],
    )
    return str(DatasetCard(text))


def _common(run: Facts, found: Facts) -> dict[str, Any]:
    """The variables of both templates."""
    unit = unit_of(found("data"))
    known = found.known(f"data.{unit}", optional=True)
    return {
        "run": run,
        "found": found,
        "labels": found.classes.names,
        "unit": unit,
        "held_out": f" of {people_in(found('data'))}" if known else "",
        "sizes": image_sizes(found),
    }


def _calibration(found: Facts) -> dict[str, Any]:
    """Calibration and abstention, empty where there is none. Raises CardError for a figure that is missing."""
    if not found.known("calibration.after"):
        return {"calibration": None, "assessment": None, "studies_by": "", "guarantee": ""}
    for side in ("before", "after"):
        ece = found(f"calibration.{side}.ece")
        if ece["value"] is None and "raw" in ece:  # its band is no reason for a missing value
            raise CardError(
                f"calibration.{side}.ece of {found.name} is {ece!r}, which no card can say. Evaluate again."
            )
    try:
        heads = calibration_heads(found("calibration"))
        rows = calibration_rows(found("calibration"), found.classes) if heads else []
        return {
            "calibration": calibration(found),
            "assessment": Table(("calibration", *heads), tuple(rows)),
            "studies_by": studies_by(found("calibration")),
            "guarantee": guarantee(found("abstention")) if found.known("abstention") else "",
        }
    except (KeyError, TypeError) as error:
        raise CardError(f"{found.name} lacks {error}, which the card needs. Evaluate the run again.") from error


def _results(found: Facts) -> list[EvalResult]:
    level, who = ("patients", "patients") if found.known("patients") else ("slices", "slices, patients unknown")
    wanted = [
        ("accuracy", "accuracy"),
        ("balanced_accuracy", "balanced accuracy"),
        ("positive.auc", f"AUC, {question(found.classes)}"),
    ]
    figures = [(path, name, found(f"{level}.{path}")) for path, name in wanted]
    return [
        EvalResult(
            task_type="image-classification",
            dataset_type="image-folder",
            dataset_name=f"{found('data.source')}, held out",
            metric_type="roc_auc" if path.endswith("auc") else path,
            metric_name=f"{name} ({who})",
            metric_value=figure["value"],
        )
        for path, name, figure in figures
        if figure["value"] is not None
    ]
