"""Collects the comparison images of an export and computes the reference's logits on them."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from stageproof.export.data.calibration import CALIBRATED
from stageproof.export.data.comparison import comparison, distinct, preprocessed
from stageproof.export.data.evaluation_set import EvaluationSet
from stageproof.export.data.labelled import in_classes
from stageproof.export.data.overlap import pixel_digests
from stageproof.export.engines.runners import LONG_S
from stageproof.export.options import Options
from stageproof.export.parity.coverage import answers, remarks, why_uninformative
from stageproof.export.parity.family import check_count, limit_of
from stageproof.export.reference.model import Reference
from stageproof.runtime.errors import ParityError
from stageproof.runtime.softmax import probabilities
from stageproof.train.runs.pseudonyms import PHANTOM, Pseudonyms

logger = logging.getLogger(__name__)


def gather(
    options: Options,
    reference: Reference,
    precisions: Sequence[str] = (),
    family: dict[str, Any] | None = None,
) -> EvaluationSet:
    """The comparison images without duplicates, and the reference's logits on them.

    precisions: those that will be built; each needs a minimum number of images and patients.
    family: joint confidence of the bundle's artifacts (`export.parity.family.family`); None for one artifact.

    Raises DatasetError or InputError for unusable images, ParityError if the reference's predictions could not reveal
    a broken artifact.
    """
    limit = limit_of(options, precisions)
    found = comparison(reference.run, limit, options.parity_data, classes=reference.info.classes)
    if found.warning:
        logger.warning(found.warning.removeprefix("WARNING: "))  # records of bundles contain the word
    samples, info = found.samples, reference.info
    images = preprocessed(samples, info.input)
    kept = distinct(images)
    repeated = len(images) - len(kept)
    if repeated:
        logger.info(f"{repeated} of {len(images)} images of {samples.source} are duplicates: left out")
        images, samples = images[kept], samples.select(kept)
    artifacts = 1 if family is None else int(family["bounded_artifacts"])
    people = samples.groups
    check_count(len(images) if people is None else people, samples.source, precisions, options, artifacts, found.unit)
    logits = _logits(reference, images)
    expected = probabilities(logits, info.temperature)
    if why := why_uninformative(expected, info.labels):
        raise ParityError(f"{why} Nothing was built.")
    counts, open_points = answers(expected, info.labels), remarks(expected, info.labels)
    logger.info("reference predictions: " + ", ".join(f"{label} {count}" for label, count in counts.items()))
    for line in open_points:
        logger.info(line)
    order = np.array([info.labels.index(name) for name in info.classes.names])
    truth = order[in_classes(samples, info.classes).labels] if found.labelled else None
    facts = {**found.facts(), "images": len(images), "limit": limit, "repeated": repeated, "answers": counts}
    facts |= {"people": None if people is None else len(np.unique(people)), "remarks": open_points}
    facts |= {} if family is None else {"family": family}
    where, pseudonyms = tuple(int(index) for index in kept), Pseudonyms()
    named = samples.source.startswith(PHANTOM)
    names = tuple(samples.names) if named else tuple(pseudonyms.of(name) for name in samples.names)
    digests = tuple(pixel_digests(samples)) if set(CALIBRATED) & set(precisions) else ()
    key = pseudonyms.key
    return EvaluationSet(
        images, logits, truth, names, samples.source, where, facts, people, None, samples, digests, key
    )


def _logits(reference: Reference, images: np.ndarray) -> np.ndarray:
    """(N, classes) float32 logits of the reference. Logs the remaining time if it is long."""
    logger.info(f"running the float32 reference on {len(images)} images")
    start = time.perf_counter()
    first = reference.logits(images[:16])
    if (rest := (time.perf_counter() - start) / 16 * (len(images) - 16)) > LONG_S:
        logger.info(f"running the float32 reference: about {rest:.0f} s left")
    return np.concatenate([first, reference.logits(images[16:])]) if len(images) > 16 else first
