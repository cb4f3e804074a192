"""Images with the reference's logits, for measuring artifacts and for fitting quantisation."""

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
class EvaluationSet:
    """Images of an export with the reference's logits, labels and patients."""

    images: np.ndarray
    """(N, C, H, W) float32."""
    logits: np.ndarray
    """(N, classes) float32, of the float32 reference in eager mode on the CPU."""
    truth: np.ndarray | None
    """(N,) int64, true class as an index of the model's outputs; None if unknown."""
    names: tuple[str, ...]
    """Keyed digests of the images' names (`train.runs.pseudonyms`), since reports leave this machine; phantoms have
    their plain names."""
    source: str
    kept: tuple[int, ...] = ()
    """Positions of these images among those of `export.data.comparison.comparison`, which may have duplicates."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Origin of the images and the reference's predictions, JSON-ready, for parity.json and the manifest."""
    people: np.ndarray | None = None
    """(N,) int64, patient (or group, see `unit`) of each image; None if unknown."""
    rejected: np.ndarray | None = None
    """(N,) bool, images that the bundle's guard rejects, so that no artifact sees them; None without a guard."""
    samples: Samples | None = None
    """The encoded images; only in the process that collected them."""
    digests: tuple[str, ...] = ()
    """`export.data.overlap.pixel_digests` of the images, to exclude them from calibration."""
    key: bytes = b""
    """Key of the digests in `names`; only in the process that collected the images."""

    @property
    def unit(self) -> str:
        """``patients``, ``groups`` of one or more patients each, or ``unknown``."""
        return UNKNOWN if self.people is None else str(self.facts.get("unit", UNKNOWN))

    @property
    def artifacts(self) -> int:
        """Number of the bundle's artifacts that are judged by an upper bound."""
        return int(self.facts.get("family", {}).get("bounded_artifacts", 1))

    def save(self, folder: Path) -> None:
        """Write it to `folder` for other processes, which memory-map the images."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "images.npy", self.images)
        np.save(folder / "logits.npy", self.logits)
        for name in _OPTIONAL:
            if (values := getattr(self, name)) is not None:
                np.save(folder / f"{name}.npy", values)
        texts = {name: getattr(self, name) for name in ("names", "source", "kept", "facts", "digests")}
        (folder / "facts.json").write_text(json.dumps(texts), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> EvaluationSet:
        """The Evidence that `save` wrote."""
        stored = {name: folder / f"{name}.npy" for name in _OPTIONAL}
        arrays = {name: np.load(path) for name, path in stored.items() if path.exists()}
        images = np.load(folder / "images.npy", mmap_mode="c")
        texts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        lists = {name: tuple(texts[name]) for name in ("names", "kept", "digests")}
        rest = {"truth": None, **lists, **arrays, "source": texts["source"], "facts": texts["facts"]}
        return cls(images, np.load(folder / "logits.npy"), **rest)
