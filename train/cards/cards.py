"""Model card and dataset card, every number of which comes from `run.json` or `evaluation.json`.

The prose itself holds no digit, so whatever number stands on a card can be traced (a test does).
"""

from __future__ import annotations

from typing import Any

from stageproof.train.cards import data as card_data
from stageproof.train.cards import results as card_results
from stageproof.train.cards import training as card_training
from stageproof.train.cards.markdown import table
from stageproof.train.cards.text import DATASET_USE, INTENDED, OUT_OF_SCOPE, RESEARCH
from stageproof.train.reports.clinical_sections import (
    Section,
    all_sections,
    demographics,
    flow_section,
    reference_standard,
)
from stageproof.train.reports.facts import Facts


def model_card(record: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """The text of `MODEL_CARD.md`, with Hugging Face front matter.

    record: the content of `run.json`, with what was fitted. evaluation: that of `evaluation.json`.

    Raises CardError for a figure that is missing.
    """
    from huggingface_hub import ModelCard, ModelCardData

    run, found = Facts("run.json", record), Facts("evaluation.json", evaluation)
    data = ModelCardData(
        language="en",
        library_name="stageproof",
        pipeline_tag="image-classification",
        tags=["medical", "mri", "alzheimer", "research-only"],
        model_name=found("run"),
        eval_results=_results(found),
    )
    parts = [
        f"# {found('run')}\n\n{RESEARCH}",
        *(f"> **{warning}**" for warning in found("warnings")),
        card_training.what_it_is(run),
        INTENDED,
        OUT_OF_SCOPE,
        _markdown(flow_section(found)),
        card_data.training_data(run, found),
        card_results.imbalance(found),
        card_results.figures(found),
        card_results.calibration(run, found),
        *map(_markdown, all_sections(found)),
        card_results.limits(found),
        card_training.hyperparameters(run),
        card_training.environment(run),
        card_results.method(found),
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def dataset_card(record: dict[str, Any], evaluation: dict[str, Any]) -> str:
    """The text of `DATASET_CARD.md`: what was measured of the data that the run was made with. Raises as above."""
    from huggingface_hub import DatasetCard, DatasetCardData

    run, found = Facts("run.json", record), Facts("evaluation.json", evaluation)
    data = DatasetCardData(
        language="en",
        pretty_name=found("data.source"),
        task_categories=["image-classification"],
        tags=["medical", "mri", "alzheimer"],
    )
    parts = [
        f"# {found('data.source')}\n\n{RESEARCH}",
        f"{run('data.slices')} axial brain-MRI slices of {card_data.patients(run)}, as `python -m train` found them. "
        f"Digest of names, labels and images: `{run('data.digest')}`. {run('data.unreadable')} files could not be "
        "read and were left out.",
        card_data.distribution(run, found),
        f"## Patients\n\n{card_data.where_from(run)}",
        f"## The split\n\n{card_data.split(run, found)}",
        *map(_markdown, (reference_standard(found), demographics(found))),
        DATASET_USE,
        card_results.limits(found),
    ]
    return str(DatasetCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"))


def _markdown(section: Section) -> str:
    parts = [f"## {section.heading}", section.text]
    if section.rows:
        parts.append(table(section.heads, section.rows))
    return "\n\n".join([*parts, section.note] if section.note else parts)


def _results(found: Facts) -> list[Any]:
    from huggingface_hub import EvalResult

    level, who = ("patients", "patients") if found.known("patients") else ("slices", "slices, patients unknown")
    wanted = [
        ("accuracy", "accuracy"),
        ("balanced_accuracy", "balanced accuracy"),
        ("demented.auc", "AUC, demented or not"),
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
