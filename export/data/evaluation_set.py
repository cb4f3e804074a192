"""Images with what the reference says of them: what artifacts are measured on, and what quantisation is fitted to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.export.data.sampling import UNKNOWN
from stageproof.train.data.samples import Samples

_OPTIONAL = ("truth", "people", "rejected")


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
    """Keyed digests of the images' names (`train.runs.pseudonyms`), since reports travel. Phantoms by their own
    names."""
    source: str
    kept: tuple[int, ...] = ()
    """Positions of these images among those of `export.data.comparison.comparison`: the first of each set of equals."""
    facts: dict[str, Any] = field(default_factory=dict)
    """JSON-ready, for parity.json and the manifest: where the images come from, and what the reference answers."""
    people: np.ndarray | None = None
    """(N,) int64, equal for images of one person (or group, `unit`); None where nobody knows."""
    rejected: np.ndarray | None = None
    """(N,) bool, images that the bundle's guard rejects, so that no artifact is asked; None without a guard."""
    samples: Samples | None = None
    """The encoded images, for the process that gathered them."""
    digests: tuple[str, ...] = ()
    """`export.data.overlap.pixel_digests` of the images: nothing is calibrated on them."""
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
