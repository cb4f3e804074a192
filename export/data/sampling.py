"""Samples slices from as many patients as possible, with few slices per patient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from stageproof.runtime.decoding.pool import read_isolated
from stageproof.runtime.errors import DatasetError, ImageError
from stageproof.train.data.identity.identify import identify
from stageproof.train.data.patients.thumbnails import thumbnail
from stageproof.train.data.samples import Samples

PATIENTS, GROUPS, UNKNOWN = "patients", "groups", "unknown"
_MAX_IDENTIFIED = 8192
"""Maximum number of images whose patients are identified from image similarity, which takes half a minute."""


@dataclass(frozen=True)
class Drawn:
    """Slices and their patients."""

    samples: Samples
    """`groups` are the patients; None if unknown."""
    unit: str
    """What a group is: ``patients``, ``groups`` of one or more patients each, or ``unknown``."""

    def draw(self, limit: int) -> Drawn:
        """At most `limit` of the slices, from as many patients as possible."""
        people = self.samples.groups
        chosen = spread(len(self.samples), limit) if people is None else over_people(people, limit)
        return replace(self, samples=self.samples.select(chosen))


def decoded(samples: Samples, purpose: str = "") -> Iterator[Image.Image]:
    """Yields the decoded images. Raises DatasetError, naming the image, if one cannot be read.

    purpose: what they are read for, as in the message.
    """
    for index, name in enumerate(samples.names):
        try:
            image = read_isolated(samples.read(index)).image
        except (ImageError, OSError) as error:
            raise DatasetError(f"{name} of {samples.source} cannot be read{purpose}: {error}") from error
        yield image


def spread(count: int, limit: int) -> np.ndarray:
    """At most `limit` positions, evenly spaced over `count`; for data sorted by class this keeps class proportions."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(np.int64))


def over_people(people: np.ndarray, limit: int) -> np.ndarray:
    """At most `limit` positions, ascending: from as many patients as possible, with nearly equal numbers of slices,
    evenly spaced over each patient's slices.

    people: (N,) int, patient of each slice.
    """
    _, index, sizes = np.unique(people, return_inverse=True, return_counts=True)
    if len(people) <= limit:
        return np.arange(len(people))
    where = np.split(np.argsort(index, kind="stable"), np.cumsum(sizes)[:-1])
    shares = _shares(sizes, limit)
    parts = [one[_middles(len(one), share)] for one, share in zip(where, shares.tolist(), strict=True) if share]
    return np.sort(np.concatenate(parts)).astype(np.int64)


def _shares(sizes: np.ndarray, limit: int) -> np.ndarray:
    """(P,) number of slices to take from each patient, `limit` in total, as equal as `sizes` allow."""
    level = 0
    while int(np.minimum(sizes, level + 1).sum()) <= limit:
        level += 1
    shares = np.minimum(sizes, level)
    more = np.flatnonzero(sizes > level)
    extra = more[spread(len(more), limit - int(shares.sum()))] if limit > int(shares.sum()) else more[:0]
    shares[extra] += 1
    return shares


def _middles(count: int, share: int) -> np.ndarray:
    """`share` positions of `count`, evenly spaced, each in the middle of its interval."""
    return ((np.arange(share) + 0.5) * count / share).astype(np.int64)


def with_people(samples: Samples, *, by_similarity: bool = True) -> Drawn:
    """The user's slices with their patients: from the source, from ids in its names, or from image similarity.

    Ids of an ambiguous form are used only if image similarity confirms them. by_similarity: False skips this, which
    takes seconds to half a minute; patients are then unknown.
    """
    if samples.groups is not None:
        return Drawn(samples, PATIENTS)
    ids = samples.ids
    if ids is not None and not ids.assumed:
        return Drawn(replace(samples, groups=ids.subjects), GROUPS if ids.scans else ids.verdict)
    if not by_similarity:
        return Drawn(replace(samples, groups=None), UNKNOWN)
    digest = samples.digest()
    if digest not in _known:
        _known[digest] = _identified(samples)
    groups, unit = _known[digest]
    return Drawn(replace(samples, groups=groups), unit)


_known: dict[str, tuple[np.ndarray | None, str]] = {}
"""`Samples.digest` → result of `_identified`, which takes long."""


def _identified(samples: Samples) -> tuple[np.ndarray | None, str]:
    if len(samples) > _MAX_IDENTIFIED:
        return None, UNKNOWN
    try:
        thumbnails = np.stack([thumbnail(image) for image in decoded(samples)])
    except DatasetError:
        return None, UNKNOWN  # the comparison will raise an error that names the image
    found = identify(thumbnails, None, samples.ids)
    return (None, UNKNOWN) if found.unit is None else (found.groups, found.unit)


def joined(first: Drawn, second: Drawn, source: str) -> Drawn:
    """The slices of both, which must have no patient in common."""
    unit = first.unit if first.unit == second.unit else UNKNOWN
    one, other = first.samples, second.samples
    assert one.classes.names == other.classes.names, "labels are indices in one label set"
    groups = None
    if one.groups is not None and other.groups is not None:
        groups = np.concatenate([one.groups, other.groups + one.groups.max(initial=0) + 1])
    samples = Samples(
        images=[*one.images, *other.images],
        labels=np.concatenate([one.labels, other.labels]),
        names=[*one.names, *other.names],
        groups=groups,
        source=source,
        classes=one.classes,
    )
    return Drawn(samples, unit if groups is not None else UNKNOWN)
