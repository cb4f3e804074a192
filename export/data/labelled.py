"""Labelled images in the classes of a model: by name, never by position."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import BundleError, CheckpointError, DatasetError
from stageproof.runtime.labels import FOUR_STAGES, LabelSet
from stageproof.runtime.model_info import label_set_in
from stageproof.train.data.class_column import UnknownLabelSetError
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.runs.record import RECORD, read_record


def classes_of_run(run: Path, record: dict[str, Any] | None = None) -> LabelSet:
    """The label set that the run recorded; of a record without labels, the four stages.

    record: the content of its run.json, if already read. Raises CheckpointError for an invalid one.
    """
    found = read_record(run) if record is None else record
    try:
        return label_set_in(found, str(run / RECORD)) if "labels" in found else FOUR_STAGES
    except BundleError as error:
        raise CheckpointError(str(error)) from error


def labelled_samples(path: Path, classes: LabelSet | None) -> Samples:
    """The labelled images at `path`, with labels as indices in `classes.names`.

    classes: the model's; None, if they are not known yet: those of the data.

    Raises DatasetError for unusable data, for images of classes that the model does not have, and for labels that are
    numbers without names, since nothing states their order. With None, UnknownLabelSetError for names that belong to no
    built-in label set.
    """
    try:
        samples = load_samples(path)
    except UnknownLabelSetError:
        if classes is None:
            raise
        samples = load_samples(path, None, classes, by_position=False)
    return samples if classes is None else in_classes(samples, classes)


def in_classes(samples: Samples, classes: LabelSet) -> Samples:
    """The samples with labels as indices in `classes.names`. Raises DatasetError for images of other classes."""
    place = np.array([classes.names.index(name) if name in classes.names else -1 for name in samples.classes.names])
    labels = place[samples.labels]
    if (labels < 0).any():
        other, counts = np.unique(samples.labels[labels < 0], return_counts=True)
        named = ", ".join(
            f"{samples.classes.names[label]} ({count})" for label, count in zip(other, counts, strict=True)
        )
        raise DatasetError(
            f"{samples.source} has images of classes that the model does not have: {named}. Its classes are "
            f"{', '.join(classes.names)}. Leave these images out, or give a folder of images without labels."
        )
    return replace(samples, labels=labels.astype(np.int64), classes=classes)
