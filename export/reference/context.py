"""`Job`, the context of one export in each format's process: options, reference, images and folders."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.export.data.calibration import calibration_samples
from stageproof.export.data.comparison import comparison, preprocessed
from stageproof.export.data.evaluation_set import EvaluationSet
from stageproof.export.options import FEW, Options
from stageproof.export.preprocessing import description as of_pixels
from stageproof.export.preprocessing.evaluation_set import PixelEvaluationSet, as_image, pixel_images
from stageproof.export.reference.model import Reference
from stageproof.runtime.preprocess import preprocess
from stageproof.runtime.system.cpus import available_cpus
from stageproof.train.data.samples import Samples

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The context that a format is built in."""

    options: Options
    reference: Reference
    evaluation_set: EvaluationSet
    folder: Path
    """Folder for artifacts."""
    work: Path
    """Folder for files that formats share; deleted after the export."""

    @property
    def threads(self) -> int:
        """CPU threads for checking and timing."""
        return self.options.threads or available_cpus()

    def description(self, precision: str, pixels: bool = False) -> dict[str, Any]:
        """Metadata of an artifact in `precision`, as read by `runtime.artifacts.metadata`.

        pixels: for an artifact that takes pixels.
        """
        reference = self.reference
        # `rejected` is None if the bundle has no guard.
        facts = {"precision": precision, "guarded": self.evaluation_set.rejected is not None}
        origin = {"labels_from": reference.order.origin} if reference.order.origin else {}
        return {
            **reference.info.to_dict(),
            **facts,
            **origin,
            **(of_pixels(self.options.with_softmax) if pixels else {}),
        }

    @cached_property
    def calibration(self) -> tuple[EvaluationSet, EvaluationSet]:
        """(calibration images, images to select float32 layers on), both without the gate's images.

        Raises DatasetError.
        """
        calibration, selection = calibration_samples(
            self.reference.run,
            self.options.calibration_data,
            moved=self.options.parity_data,
            compared=self.evaluation_set.digests,
            classes=self.reference.info.classes,
        )
        return self._with_logits(calibration), self._with_logits(selection)

    def _with_logits(self, samples: Samples) -> EvaluationSet:
        images = preprocessed(samples, self.reference.info.input)
        logits, people = self.reference.logits(images), samples.groups
        return EvaluationSet(images, logits, None, tuple(samples.names), samples.source, people=people)

    @cached_property
    def pixels(self) -> PixelEvaluationSet:
        """Comparison images for artifacts that take pixels; computed once, by the first format that uses them."""
        options, reference = self.options, self.reference
        limit = int(self.evaluation_set.facts.get("limit", options.parity_images or FEW))
        samples = comparison(reference.run, limit, options.parity_data, classes=reference.info.classes).samples
        samples = samples.select(np.array(self.evaluation_set.kept, np.int64))
        images, order = pixel_images(samples)
        stored = self.work / "pixels.npy"
        if not stored.exists():
            logger.info("running the float32 reference on the slices at ten sizes, greyscale and colour")
            spec = reference.info.input
            np.save(stored, reference.logits(np.stack([preprocess(as_image(image), spec) for image in images])))
        truth = None if self.evaluation_set.truth is None else self.evaluation_set.truth[order]
        people = None if self.evaluation_set.people is None else self.evaluation_set.people[order]
        names = tuple(self.evaluation_set.names[index] for index in order)
        source = f"{samples.source}, ten sizes, grey and colour"
        return PixelEvaluationSet(images, np.load(stored), truth, names, source, people)
