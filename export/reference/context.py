"""One export as each format's process sees it: what to build from, where to, and what to measure it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.export.data.calibration import calibration_samples
from stageproof.export.data.comparison import comparison, preprocessed
from stageproof.export.data.evaluation_set import Evidence
from stageproof.export.options import FEW, Options
from stageproof.export.preprocessing import description as of_pixels
from stageproof.export.preprocessing.evaluation_set import PixelEvidence, as_image, pixel_images
from stageproof.export.reference.model import Reference
from stageproof.runtime.preprocess import preprocess
from stageproof.runtime.system.cpus import available_cpus
from stageproof.train.data.samples import Samples


@dataclass(frozen=True)
class Job:
    """What a format is given to build from."""

    options: Options
    reference: Reference
    evidence: Evidence
    folder: Path
    """Artifacts are written here."""
    work: Path
    """What formats leave for each other; gone after the export."""
    say: Callable[[str], None] = print
    """Progress, for people."""

    @property
    def threads(self) -> int:
        """CPU threads for checking and timing."""
        return self.options.threads or available_cpus()

    def description(self, precision: str, pixels: bool = False) -> dict[str, Any]:
        """What an artifact in `precision` carries of itself, as `runtime.artifacts.metadata` reads it.

        pixels: of one that takes them.
        """
        reference = self.reference
        # Which images the guard rejects is None where the bundle has none.
        facts = {"precision": precision, "guarded": self.evidence.rejected is not None}
        origin = {"labels_from": reference.order.origin} if reference.order.origin else {}
        return {
            **reference.info.to_dict(),
            **facts,
            **origin,
            **(of_pixels(self.options.with_softmax) if pixels else {}),
        }

    @cached_property
    def calibration(self) -> tuple[Evidence, Evidence]:
        """What int8 is calibrated on, and what its float layers are chosen on: neither is what the gate measures.

        Raises DatasetError.
        """
        calibration, selection = calibration_samples(
            self.reference.run,
            self.options.calibration_data,
            moved=self.options.parity_data,
            compared=self.evidence.digests,
            say=self.say,
        )
        return self._asked(calibration), self._asked(selection)

    def _asked(self, samples: Samples) -> Evidence:
        images = preprocessed(samples, self.reference.info.input)
        logits, people = self.reference.logits(images), samples.groups
        return Evidence(images, logits, None, tuple(samples.names), samples.source, people=people)

    @cached_property
    def pixels(self) -> PixelEvidence:
        """What artifacts that take pixels are measured on. Made once an export, for the first format that asks."""
        options, reference = self.options, self.reference
        limit = int(self.evidence.facts.get("limit", options.parity_images or FEW))
        samples = comparison(reference.run, limit, options.parity_data).samples
        samples = samples.select(np.array(self.evidence.kept, np.int64))
        images, order = pixel_images(samples)
        stored = self.work / "pixels.npy"
        if not stored.exists():
            self.say("running the float32 reference on the same slices at ten sizes, grey and colour")
            spec = reference.info.input
            np.save(stored, reference.logits(np.stack([preprocess(as_image(image), spec) for image in images])))
        truth = None if self.evidence.truth is None else self.evidence.truth[order]
        people = None if self.evidence.people is None else self.evidence.people[order]
        names = tuple(self.evidence.names[index] for index in order)
        source = f"{samples.source}, ten sizes, grey and colour"
        return PixelEvidence(images, np.load(stored), truth, names, source, people)
