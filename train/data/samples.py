"""`Samples`: encoded images with labels and patient ids, the common result of all data sources."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from stageproof.runtime.labels import LabelSet
from stageproof.runtime.system.regular_files import read_regular
from stageproof.train.data.ids import Ids


@dataclass(frozen=True)
class Skipped:
    """Files or folders that were ignored."""

    reason: str
    count: int
    example: str
    """One of them, relative to the data; may be empty."""

    def __str__(self) -> str:
        return f"{self.count} {self.reason}" + (f", such as {self.example}" if self.example else "")


@dataclass(frozen=True)
class Samples:
    """Encoded images with label and patient. All fields have one entry for each slice, in the same order."""

    images: Sequence[bytes | Path]
    """Encoded image files, or their paths; decoded by `runtime.images.raster.read_image`."""
    labels: np.ndarray
    """(N,) int64, indices in `classes.names`."""
    names: Sequence[str]
    """(N,) unique names, for messages and reports."""
    groups: np.ndarray | None
    """(N,) int64, equal for slices of one patient; None if unknown."""
    source: str
    """Description of the source: a path, or ``phantom(seed=0, …)``."""
    ids: Ids | None = None
    """Patient ids found in the source; None if it has none, or for phantoms, whose patients are in `groups`."""
    paths: Sequence[str] | None = None
    """(N,) paths in which ids are searched for; None if these are the names."""
    skipped: tuple[Skipped, ...] = ()
    """Files that were ignored."""
    notes: tuple[str, ...] = ()
    """Ids that were found but not used, with the reason."""
    classes: LabelSet = field(kw_only=True)
    """The label set of the data; some classes may have no slice."""

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The encoded bytes of one slice. Raises OSError if the file cannot be read."""
        image = self.images[index]
        return image if isinstance(image, bytes) else read_regular(image)

    def select(self, indices: np.ndarray) -> Samples:
        """The slices at `indices` ((K,) int), in that order."""
        return replace(
            self,
            images=[self.images[i] for i in indices],
            labels=self.labels[indices],
            names=[self.names[i] for i in indices],
            groups=None if self.groups is None else self.groups[indices],
            ids=None if self.ids is None else self.ids.select(indices),
            paths=None if self.paths is None else [self.paths[i] for i in indices],
        )

    def digest(self) -> str:
        """SHA-256 over names, labels and image bytes, in this order. It identifies the data."""
        total = hashlib.sha256()
        for index, (name, label) in enumerate(zip(self.names, self.labels, strict=True)):
            try:
                content = hashlib.sha256(self.read(index)).hexdigest()
            except OSError as error:
                content = f"unreadable:{type(error).__name__}"
            total.update(f"{name}\0{int(label)}\0{content}\n".encode())
        return total.hexdigest()
