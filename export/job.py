"""One export as each format's process sees it: what to build from, where to, and what to measure it with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from export.apart import pixel_digests
from export.coverage import answers, remarks, why_nothing
from export.draw import UNKNOWN
from export.family import FEW, check_count, limit_of
from export.guarding import FILE as GUARD
from export.images import calibration_samples, comparison, distinct, preprocessed
from export.of_bundle import reference_of
from export.options import ARCHITECTURE, IMAGE_SIZE, Options
from export.pixels import description as of_pixels
from export.pixels.evidence import PixelEvidence, as_image, pixel_images
from export.preconditions import CALIBRATED
from export.reference import Reference, from_checkpoint, from_run, run_of_weights
from runtime.calibration import probabilities
from runtime.errors import InputError, ParityError
from runtime.labels import LABELS
from runtime.preprocess import preprocess
from runtime.threads import available_cpus
from train.class_order import given_labels
from train.data.samples import Samples
from train.pseudonyms import PHANTOM, Pseudonyms
from train.runs import newest_run

_OPTIONAL = ("truth", "people", "rejected")
LONG_S = 10
"""Seconds of work of which it is said beforehand how long it will take."""


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
    """Keyed digests of the images' names (`train.pseudonyms`), since reports travel. Phantoms by their own names."""
    source: str
    kept: tuple[int, ...] = ()
    """Positions of these images among those that `export.images.comparison` gives: the first of each set of equals."""
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON-ready, for parity.json and the manifest: where the images come from, and what the reference answers."""
    people: np.ndarray | None = None
    """(N,) int64, equal for images of one person (or group, `unit`); None where nobody knows."""
    rejected: np.ndarray | None = None
    """(N,) bool, images that the bundle's guard rejects, so that no artifact is asked; None without a guard."""
    samples: Samples | None = None
    """The encoded images, for the process that gathered them."""
    digests: tuple[str, ...] = ()
    """`export.apart.pixel_digests` of the images: nothing is calibrated on them."""
    key: bytes = b""
    """By which `names` are digests of the images' names; for the process that gathered them."""

    @property
    def unit(self) -> str:
        """``patients``, ``groups`` of one or more people each, or ``unknown``."""
        return UNKNOWN if self.people is None else str(self.facts.get("unit", UNKNOWN))

    @property
    def artifacts(self) -> int:
        """How many artifacts of the bundle are judged by a bound."""
        return int(self.facts.get("family", {}).get("bounded_artifacts", 1))

    def save(self, folder: Path) -> None:
        """Write it for other processes; the images stay on the disk there, shared by all of them."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", self.images)
        np.save(folder / "logits.npy", self.logits)
        for name in _OPTIONAL:
            if (values := getattr(self, name)) is not None:
                np.save(folder / f"{name}.npy", values)
        texts = {name: getattr(self, name) for name in ("names", "source", "kept", "facts", "digests")}
        (folder / "facts.json").write_text(json.dumps(texts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """What `save` wrote."""
        stored = {name: folder / f"{name}.npy" for name in _OPTIONAL}
        arrays = {name: np.load(path) for name, path in stored.items() if path.exists()}
        images = np.load(folder / "images.npy", mmap_mode="c")
        texts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        lists = {name: tuple(texts[name]) for name in ("names", "kept", "digests")}
        rest = {"truth": None, **lists, **arrays, "source": texts["source"], "facts": texts["facts"]}
        return cls(images, np.load(folder / "logits.npy"), **rest)


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
        """What an artifact in `precision` carries of itself, as `runtime.carried` reads it.

        pixels: of one that takes them.
        """
        reference = self.reference
        facts = {"precision": precision, "guarded": (self.folder / GUARD).is_file()}
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


def load_reference(options: Options) -> Reference:
    """The run or checkpoint that the options name, or the newest run.

    Raises CheckpointError for what cannot be loaded, and InputError for labels, mean or std that are not the run's.
    """
    source = options.source or newest_run()
    if options.rebuild:
        return reference_of(options.out, source)
    if not source.is_dir():
        source = run_of_weights(source) or source
    if not source.is_dir():
        architecture, size = options.architecture or ARCHITECTURE, options.image_size or IMAGE_SIZE
        return from_checkpoint(source, architecture, size, options.labels, options.mean, options.std)
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


def gather(
    options: Options,
    reference: Reference,
    precisions: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
    family: dict[str, Any] | None = None,
) -> Evidence:
    """The images to compare on, no two of them alike, and the reference's logits.

    precisions: what will be built; there must be images enough, of people enough, for each.
    family: how many artifacts share the 5 % (`export.family.family`); None for one.

    Raises DatasetError or InputError for images of no use, ParityError where the reference's answers show nothing.
    """
    limit = limit_of(options, precisions)
    found = comparison(reference.run, limit, options.parity_data)
    if found.warning:
        say(found.warning)
    samples, info = found.samples, reference.info
    images = preprocessed(samples, info.input)
    kept = distinct(images)
    repeated = len(images) - len(kept)
    if repeated:
        say(f"{repeated} of {len(images)} images of {samples.source} repeat another one: left out")
        images, samples = images[kept], samples.select(kept)
    artifacts = 1 if family is None else int(family["bounded_artifacts"])
    people = samples.groups
    check_count(len(images) if people is None else people, samples.source, precisions, options, artifacts, found.unit)
    logits = _logits(reference, images, say)
    expected = probabilities(logits, info.temperature)
    if why := why_nothing(expected, info.labels):
        raise ParityError(f"{why} Nothing was built.")
    counts, open_points = answers(expected, info.labels), remarks(expected, info.labels)
    say("the reference answers " + ", ".join(f"{label} {count}" for label, count in counts.items()))
    for line in open_points:
        say(line)
    order = np.array([info.labels.index(label) if label in info.labels else -1 for label in LABELS])
    truth = order[samples.labels] if found.labelled and set(info.labels) == set(LABELS) else None
    facts = {**found.facts(), "images": len(images), "limit": limit, "repeated": repeated, "answers": counts}
    facts |= {"people": None if people is None else len(np.unique(people)), "remarks": open_points}
    facts |= {} if family is None else {"family": family}
    where, pseudonyms = tuple(int(index) for index in kept), Pseudonyms()
    named = samples.source.startswith(PHANTOM)
    names = tuple(samples.names) if named else tuple(pseudonyms.of(name) for name in samples.names)
    digests = tuple(pixel_digests(samples)) if set(CALIBRATED) & set(precisions) else ()
    key = pseudonyms.key
    return Evidence(images, logits, truth, names, samples.source, where, facts, people, None, samples, digests, key)


def _logits(reference: Reference, images: np.ndarray, say: Callable[[str], None]) -> np.ndarray:
    """(N, classes) float32 of the reference; `say` takes how long that will take, where it is long."""
    say(f"running the float32 reference on {len(images)} images")
    start = time.perf_counter()
    first = reference.logits(images[:16])
    if (rest := (time.perf_counter() - start) / 16 * (len(images) - 16)) > LONG_S:
        say(f"running the float32 reference: about {rest:.0f} s to go")
    return np.concatenate([first, reference.logits(images[16:])]) if len(images) > 16 else first
