"""Is this image one the model may speak about? Cheap checks, then the distance from the training slices.

The model itself cannot tell: a softmax names a stage for any cat. What is asked here is whether a 32 x 32 thumbnail
lies where the thumbnails of the training slices lie: how much of it their principal components leave unexplained
(residual), how far out it is among them (distance), and whether it would fit better turned (orientation). Everything
is fitted at export, with thresholds from patients that were left out of the fit; see Jackson & Mudholkar 1979,
Technometrics 21:341, for the two distances.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stageproof.runtime.artifacts.files import read_once
from stageproof.runtime.errors import BundleError, InputError
from stageproof.runtime.guard.thumbnails import SIZE, Thumbnail, measured, thumbnail
from stageproof.runtime.serialization.json_fields import exactly, is_number, parse
from stageproof.runtime.serialization.npz import arrays_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPONENTS = 48
"""At most; with few training slices, one for every eight."""

FOLDS = 5
QUANTILE = 0.995
"""Share of left-out slices, and of fitted ones, that each threshold lets pass before its margin."""

_FORMAT = 1

_DISTANCES = ("residual", "distance", "orientation")

_ARRAYS = ("mean", "components", "scales")

LARGEST = 1 << 20
"""Bytes of a guard file; one with `COMPONENTS` has 203 kB."""
_SIZES = {
    "about": ("U", 64 << 10),
    "mean": ("f", 4 * SIZE**2),
    "components": ("f", 4 * SIZE**2 * COMPONENTS),
    "scales": ("f", 4 * COMPONENTS),
}
"""What a guard file holds, and bytes of each at most."""
_MOST = {
    # Of a score's range: at a larger threshold nothing would ever be rejected.
    "blank": 1.0,
    "colour": 1.5,
    "border": 2.0,
    "smooth": 1.0,
    "residual": 10.0,
    "distance": 1e5,
    "orientation": 1e4,
}
"""The largest threshold of each score."""

_AT_ONCE = 16
"""Thumbnails whose turned copies are in memory at a time: with the components they fit a core's cache."""

_REASONS = {
    # In the order they are asked: the first that holds is the most specific.
    "blank": "it has almost no contrast at 32 x 32 pixels, as a blank image or noise has",
    "colour": "it is a colour image; the model was trained on grey slices",
    "border": "its border is bright; the training slices show the head on a black background",
    "smooth": "it shows no structure within its outline",
    "orientation": "it fits the training slices better when turned: it is upside down or lies on its side",
    "residual": "it does not look like the slices the model was trained on",
    "distance": "it is too far from the slices the model was trained on",
}


@dataclass(frozen=True)
class Guard:
    """What `fit` learnt from the training slices."""

    mean: NDArray[np.float32]
    """(1024,) of the thumbnails, brightness 0 to about 1."""
    components: NDArray[np.float32]
    """(K, 1024), orthonormal rows, strongest first."""
    scales: NDArray[np.float32]
    """(K,) standard deviation along each."""
    thresholds: Mapping[str, float]
    """By score; an image is rejected where a score is above its threshold."""
    fitted: Mapping[str, float]
    """images, groups, and the share of left-out slices that these thresholds reject."""

    def scores(self, image: Image.Image) -> dict[str, float]:
        """Every score of an upright image of mode L or RGB; the higher, the stranger. About 0.1 ms.

        blank 0-1, colour 0-1, border 0-1.5, smooth up to 1, residual (root mean square brightness), distance (root
        mean square standard deviations), orientation (residual as it is over the least residual when turned or
        mirrored top to bottom).
        """
        return self.scores_of([thumbnail(image)])[0]

    thumbnail = staticmethod(thumbnail)

    def scores_of(self, thumbnails: Sequence[Thumbnail]) -> list[dict[str, float]]:
        """The same, of the thumbnails of one image or more: a third of the time for each, and the same numbers."""
        plain, brightness = measured(thumbnails)
        return _by_image({**plain, **self._distances(brightness)})

    def judge(self, scores: Mapping[str, float]) -> tuple[str, str] | None:
        """(code, reason) for the first score above its threshold; None when the model may speak."""
        for code, reason in _REASONS.items():
            # Written so that NaN, which compares false with everything, is rejected.
            if not scores[code] <= self.thresholds[code]:
                return code, f"{reason} ({code} {scores[code]:.3g}, at most {self.thresholds[code]:.3g})"
        return None

    @cached_property
    def _projection(self) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """The components and the mean as columns (1024, K + 1), and what the mean has along each of these."""
        columns = np.ascontiguousarray(np.concatenate([self.components, self.mean[None]]).T)
        along = self.mean @ columns
        return columns, along[:-1], float(along[-1])

    def _distances(self, brightness: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """residual, distance and orientation, (N,) each, of (N, 32, 32)."""
        parts = [self._distances_of_few(brightness[at : at + _AT_ONCE]) for at in range(0, len(brightness), _AT_ONCE)]
        return {name: np.concatenate([part[name] for part in parts]) for name in _DISTANCES}

    def _distances_of_few(self, brightness: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        # Upside down, and on either side. The fit knows every slice's mirror image too, so that mirroring left to right
        # changes no residual: turned by half scores as upside down does.
        turned = np.empty((len(brightness), 4, SIZE, SIZE), np.float32)
        on_side = brightness.transpose(0, 2, 1)
        turned[:, 0], turned[:, 1] = brightness, brightness[:, ::-1]
        turned[:, 2], turned[:, 3] = on_side[:, ::-1], on_side[:, :, ::-1]
        columns, offset, mean_squared = self._projection
        # One product for each image, not one for all: that gives the same numbers whatever stands beside it, and keeps
        # below the size from which the product would start threads, which the engine needs.
        along = turned.reshape(-1, 4, SIZE * SIZE) @ columns  # (N, 4, K + 1)
        places = along[:, :, :-1] - offset
        # Pythagoras: the components are orthonormal, and turning changes no pixel's value. The squared distance from
        # the mean is expanded, so that one product serves for it and for the places.
        squared = np.einsum("nij,nij->n", brightness, brightness)[:, None] + mean_squared
        whole = squared - 2.0 * along[:, :, -1]
        unexplained = whole - np.einsum("nik,nik->ni", places, places)
        residuals = np.sqrt(np.maximum(unexplained, 1e-9) / SIZE**2)
        scaled = places[:, 0] / self.scales
        return {
            "residual": residuals[:, 0],
            "distance": np.sqrt(np.einsum("nk,nk->n", scaled, scaled) / len(self.scales)),
            "orientation": residuals[:, 0] / residuals[:, 1:].min(axis=1),
        }

    def write(self, path: Path) -> None:
        """One `.npz` file without pickles, which `read` reads back exactly."""
        about = {"format": _FORMAT, "thresholds": dict(self.thresholds), "fitted": dict(self.fitted)}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with path.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def read(cls, path: Path) -> Guard:
        """The guard that `write` wrote. Raises BundleError for anything else. Compare its SHA-256 before."""
        try:
            return cls.of(read_once(path, LARGEST, "guard"), path)
        except FileNotFoundError as error:
            raise BundleError(f"{path} does not exist. Copy the bundle again, or export again.") from error

    @classmethod
    def of(cls, content: bytes, path: Path) -> Guard:
        """The guard that these bytes are. path: where they were read, for messages. Raises BundleError as `read`."""
        try:
            found = arrays_of(content, _SIZES)
            about = parse(str(found.pop("about")), str(path))
            exactly(about, str(path), ("format", "thresholds", "fitted"))
            arrays = {name: np.ascontiguousarray(found[name], dtype=np.float32) for name in _ARRAYS}
            guard = cls(thresholds=about["thresholds"], fitted=about["fitted"], **arrays)
            _check(guard, about["format"])
        except Exception as error:  # zipfile, zlib, numpy and json raise each their own
            raise BundleError(f"{path} is not a guard this runtime reads ({error}). Export again.") from error
        return guard


def fit(images: Iterable[Image.Image], groups: Sequence[int] | NDArray[Any] | None = None) -> Guard:
    """A guard for models trained on these slices.

    images: N upright images of mode L or RGB, from `runtime.read_image`; 16 or more. A few thousand are enough.
    groups: (N,) equal for slices of one patient: whoever the thresholds come from is left out of the fit. Without
        it every slice counts as a patient of its own, and the thresholds will be too tight for new patients.

    The thresholds let about 1 % of left-out slices be rejected; `fitted["rejected"]` says how many. Raises InputError
    for fewer than 16 images or fewer than two groups. Seconds for thousands of slices.
    """
    thumbnails = [thumbnail(image) for image in images]
    count = len(thumbnails)
    if count < 16:
        raise InputError(f"images holds {count} slices; a guard needs at least 16 to know what is usual.")
    members = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(members) != count or members.max() < 1:
        raise InputError(
            f"groups has {len(members)} entries and {members.max() + 1} patients for {count} images; expected one "
            "entry an image, and at least two patients."
        )
    plain, stack = measured(thumbnails)
    kept = max(1, min(COMPONENTS, count // 8))
    left_out = {name: np.empty(count, np.float32) for name in _DISTANCES}
    for fold in range(min(FOLDS, int(members.max()) + 1)):
        others = members % FOLDS == fold
        for name, values in Guard(*_components(stack[~others], kept), {}, {})._distances(stack[others]).items():
            left_out[name][others] = values
    new = {**plain, **left_out}
    components = _components(stack, kept)
    # Slices that were fitted lie further along the components than new ones where there are few, and must pass too.
    seen = {**plain, **Guard(*components, {}, {})._distances(stack)}
    thresholds = {code: max(_threshold(code, part[code]) for part in (new, seen)) for code in _REASONS}
    fitted = Guard(*components, thresholds, {})
    rejected = float(np.mean([fitted.judge(scores) is not None for scores in _by_image(new)]))
    about = {"images": float(count), "groups": float(members.max() + 1), "rejected": rejected}
    return Guard(*components, thresholds, about)


def _by_image(scores: Mapping[str, NDArray[Any]]) -> list[dict[str, float]]:
    """N dictionaries of numbers, from one of (N,) arrays."""
    rows = zip(*(values.tolist() for values in scores.values()), strict=True)
    return [dict(zip(scores, row, strict=True)) for row in rows]


def _components(
    stack: NDArray[np.float32], kept: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """mean (1024,), and the `kept` strongest components (K, 1024) and scales (K,), of (N, 32, 32) thumbnails.

    Every thumbnail counts with its mirror image: sites store left and right either way, and both must score alike.
    """
    rows = np.concatenate([stack, stack[:, :, ::-1]]).reshape(2 * len(stack), -1).astype(np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    # The same components from the smaller of the two: pixels by pixels, or slices by slices.
    if len(rows) > rows.shape[1]:
        values, vectors = np.linalg.eigh(centred.T @ centred)  # ascending
    else:
        values, weights = np.linalg.eigh(centred @ centred.T)
        vectors = centred.T @ weights / np.sqrt(np.maximum(values, 1e-12))
    scales = np.sqrt(np.maximum(values[::-1][:kept] / (len(rows) - 1), 1e-8))
    components = np.ascontiguousarray(vectors[:, ::-1][:, :kept].T)
    return mean.astype(np.float32), components.astype(np.float32), scales.astype(np.float32)


def _threshold(code: str, values: NDArray[Any]) -> float:
    usual = float(np.quantile(values, QUANTILE))
    if code in ("blank", "smooth"):
        return (1.0 + float(values.max())) / 2.0  # half the least contrast, or structure, seen
    if code in ("colour", "border"):
        return usual + 0.05
    return usual * 1.05


def _check(guard: Guard, form: object) -> None:
    if form != _FORMAT:
        raise ValueError(f"format {form!r}, expected {_FORMAT}")
    count = len(guard.scales)
    shapes = (guard.mean.shape, guard.components.shape, guard.scales.shape)
    if count < 1 or shapes != ((SIZE * SIZE,), (count, SIZE * SIZE), (count,)):
        raise ValueError(f"arrays of shapes {shapes}")
    if not all(np.isfinite(getattr(guard, name)).all() for name in _ARRAYS) or guard.scales.min() <= 0:
        raise ValueError("values that are not finite, or scales that are not positive")
    if not isinstance(guard.thresholds, dict) or set(guard.thresholds) != set(_REASONS):
        raise ValueError(f"thresholds of {list(guard.thresholds)[:8]}, expected those of {sorted(_REASONS)}")
    for code, value in guard.thresholds.items():
        if not is_number(value) or not 0 <= value <= _MOST[code]:
            raise ValueError(f"threshold {value!r} of {code}, expected a number from 0 to {_MOST[code]:g}")
    if not isinstance(guard.fitted, dict) or not all(map(is_number, guard.fitted.values())):
        raise ValueError("what it was fitted to is not told in numbers")
