"""One export as each format's process sees it: what to build from, where to, and what to measure it with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from export.class_order import given_labels
from export.images import calibration_samples, parity_samples, preprocessed
from export.options import Options
from export.pixels.evidence import PixelEvidence, as_image, pixel_images
from export.reference import Reference, from_checkpoint, from_run, run_of_weights
from runtime.errors import InputError
from runtime.labels import LABELS
from runtime.preprocess import preprocess
from runtime.threads import available_cpus
from train.data.samples import Samples
from train.runs import chosen, newest_run, run_of_file


@dataclass(frozen=True)
class Evidence:
    """The images that every artifact of one export is measured on, and what the reference says of them."""

    images: np.ndarray
    """(N, C, H, W) float32."""
    logits: np.ndarray
    """(N, classes) float32, eager float32 on the CPU."""
    truth: np.ndarray | None
    """(N,) int64 in the order of the model's outputs, where labels are known."""
    names: tuple[str, ...]
    source: str

    def save(self, folder: Path) -> None:
        """Write it for other processes; the images stay on the disk there, shared by all of them."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", self.images)
        facts: dict[str, Any] = {"logits": self.logits, "names": np.array(self.names), "source": np.array(self.source)}
        if self.truth is not None:
            facts["truth"] = self.truth
        np.savez(folder / "facts.npz", **facts)

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """What `save` wrote."""
        facts = np.load(folder / "facts.npz")
        truth = facts["truth"] if "truth" in facts.files else None
        images = np.load(folder / "images.npy", mmap_mode="c")
        return cls(images, facts["logits"], truth, tuple(facts["names"].tolist()), str(facts["source"]))


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

    @cached_property
    def calibration(self) -> tuple[Evidence, Evidence]:
        """What int8 is calibrated on, and what its float layers are chosen on: neither is what the gate measures.

        Raises DatasetError.
        """
        calibration, selection = calibration_samples(self.reference.run, self.options.calibration_data)
        return self._asked(calibration), self._asked(selection)

    def _asked(self, samples: Samples) -> Evidence:
        images = preprocessed(samples, self.reference.info.input)
        return Evidence(images, self.reference.logits(images), None, tuple(samples.names), samples.source)

    @cached_property
    def pixels(self) -> PixelEvidence:
        """What artifacts that take pixels are measured on. Made once an export, for the first format that asks."""
        options, reference = self.options, self.reference
        samples, _ = parity_samples(reference.run, options.parity_images, options.parity_data)
        images, order = pixel_images(samples)
        stored = self.work / "pixels.npy"
        if not stored.exists():
            self.say("asking eager float32 about the same slices at ten sizes, grey and colour")
            spec = reference.info.input
            np.save(stored, reference.logits(np.stack([preprocess(as_image(image), spec) for image in images])))
        truth = None if self.evidence.truth is None else self.evidence.truth[order]
        names = tuple(samples.names[index] for index in order)
        return PixelEvidence(images, np.load(stored), truth, names, f"{samples.source}, ten sizes, grey and colour")


def settled(options: Options, say: Callable[[str], None]) -> Options:
    """The options with the run named, so that every process of one export means the same; `say` takes which it is."""
    source = options.source
    if source is not None and source.is_file() and (run := run_of_file(source)):
        say(f"{source} is the weight file of {run}, which is exported")
        source = run
    if source is None or not source.is_file():
        source = chosen(source, say)
    return replace(options, source=source.resolve())


def load_reference(options: Options) -> Reference:
    """The run or checkpoint that the options name, or the newest run.

    Raises CheckpointError for what cannot be loaded, and InputError for labels, mean or std that are not the run's.
    """
    source = options.source or newest_run()
    if not source.is_dir():
        source = run_of_weights(source) or source
    if not source.is_dir():
        return from_checkpoint(
            source, options.architecture, options.image_size, options.labels, options.mean, options.std
        )
    reference = from_run(source)
    labels, spec = reference.info.labels, reference.info.input
    given = (given_labels(options.labels) or labels, options.mean or spec.mean, options.std or spec.std)
    pairs = zip(("--labels", "--mean", "--std"), given, (labels, spec.mean, spec.std), strict=True)
    for option, value, own in pairs:
        if tuple(value) != tuple(own):
            raise InputError(
                f"{option} is {' '.join(map(str, value))}, and {source} was trained with {' '.join(map(str, own))}. A "
                f"run knows its own: leave {option} out. It is for checkpoints that other code saved."
            )
    return reference


def gather(options: Options, reference: Reference) -> Evidence:
    """The images to compare on and the reference's logits. Raises DatasetError or InputError for images of no use."""
    samples, labelled = parity_samples(reference.run, options.parity_images, options.parity_data)
    images = preprocessed(samples, reference.info.input)
    labels = reference.info.labels
    order = np.array([labels.index(label) if label in labels else -1 for label in LABELS])
    truth = order[samples.labels] if labelled and set(labels) == set(LABELS) else None
    return Evidence(images, reference.logits(images), truth, tuple(samples.names), samples.source)
