"""`Samples`: encoded images with what is known about each, as every source hands them over."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stageproof.runtime.system.regular_files import read_regular
from stageproof.train.data.ids import Ids


@dataclass(frozen=True)
class Skipped:
    """Files or folders that were not taken."""

    reason: str
    count: int
    example: str
    """One of them, relative to the data; empty where none is worth naming."""

    def __str__(self) -> str:
        return f"{self.count} {self.reason}" + (f", such as {self.example}" if self.example else "")


@dataclass(frozen=True)
class Samples:
    """Encoded images with label and patient; position i of every field is the same slice."""

    images: Sequence[bytes | Path]
    """Encoded image files, or their paths; decoded by `runtime.images.raster.read_image`."""
    labels: np.ndarray
    """(N,) int64, positions in `runtime.labels.LABELS`."""
    names: Sequence[str]
    """(N,) what to call each slice in messages and reports, unique."""
    groups: np.ndarray | None
    """(N,) int64, equal for slices of one patient; None when the source does not say."""
    source: str
    """Where they come from, for people: a path, or ``phantom(seed=0, …)``."""
    ids: Ids | None = None
    """Whose each slice is by what the source itself names; None where it names nobody, or `groups` says it."""
    paths: Sequence[str] | None = None
    """(N,) paths as the source has them, in which ids are looked for; None where they are the names."""
    skipped: tuple[Skipped, ...] = ()
    """Files that were not taken."""
    notes: tuple[str, ...] = ()
    """Ids that were seen but not used, and why."""

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one slice. Raises OSError for a file that cannot be read."""
        image = self.images[index]
        return image if isinstance(image, bytes) else read_regular(image)

    def select(self, indices: np.ndarray) -> Samples:
        """The slices at `indices` ((K,) int), in that order."""
        return Samples(
            images=[self.images[i] for i in indices],
            labels=self.labels[indices],
            names=[self.names[i] for i in indices],
            groups=None if self.groups is None else self.groups[indices],
            source=self.source,
            ids=None if self.ids is None else self.ids.select(indices),
            paths=None if self.paths is None else [self.paths[i] for i in indices],
            skipped=self.skipped,
            notes=self.notes,
        )

    def digest(self) -> str:
        """SHA-256 over names, labels and image bytes: the identity of this data, in this order."""
        total = hashlib.sha256()
        for index, (name, label) in enumerate(zip(self.names, self.labels, strict=True)):
            try:
                content = hashlib.sha256(self.read(index)).hexdigest()
            except OSError as error:
                content = f"unreadable:{type(error).__name__}"
            total.update(f"{name}\0{int(label)}\0{content}\n".encode())
        return total.hexdigest()
