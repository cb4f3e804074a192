"""`Guard`: out-of-distribution detection by simple image checks and the distance from the training slices.

A classifier assigns a stage to any image, even to a photograph of a cat. The guard compares a 32 x 32 thumbnail with
those of the training slices by PCA: the reconstruction error (residual), the distance from the mean within the
principal components (distance), and whether a rotated image fits better (orientation). It is fitted at export, with
thresholds from held-out patients. For both distances see Jackson & Mudholkar 1979, Technometrics 21:341.
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
from stageproof.runtime.guard.thumbnails import SIZE, Thumbnail, thumbnail, thumbnail_scores
from stageproof.runtime.serialization.json_fields import exactly, is_number, parse
from stageproof.runtime.serialization.npz import arrays_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

COMPONENTS = 48
"""Maximum number of principal components; with few training slices, one per eight slices."""

FOLDS = 5
QUANTILE = 0.995
"""Quantile of the held-out (and of the fitted) slices' scores at which each threshold is set, before its margin."""

_FORMAT = 1

_DISTANCES = ("residual", "distance", "orientation")

_ARRAYS = ("mean", "components", "scales")

LARGEST = 1 << 20
"""Limit on the bytes of a guard file; one with `COMPONENTS` components has 203 kB."""
_SIZES = {
    "about": ("U", 64 << 10),
    "mean": ("f", 4 * SIZE**2),
    "components": ("f", 4 * SIZE**2 * COMPONENTS),
    "scales": ("f", 4 * COMPONENTS),
}
"""Arrays of a guard file → type and maximum size in bytes."""
_MOST = {
    # End of a score's range; with a larger threshold, nothing would be rejected.
    "blank": 1.0,
    "colour": 1.5,
    "border": 2.0,
    "smooth": 1.0,
    "residual": 10.0,
    "distance": 1e5,
    "orientation": 1e4,
}
"""Score → largest allowed threshold."""

_AT_ONCE = 16
"""Thumbnails processed together: their rotated copies and the components fit in a core's cache."""

_REASONS = {
    # In the order of the checks, the most specific first.
    "blank": "it has almost no contrast at 32 x 32 pixels, like a blank image or noise",
    "colour": "it is a colour image; the model was trained on grey slices",
    "border": "its border is bright; the training slices show the head on a black background",
    "smooth": "it has no structure within its outline",
    "orientation": "it fits the training slices better when rotated: it is upside down or on its side",
    "residual": "it does not look like the slices the model was trained on",
    "distance": "it is too far from the slices the model was trained on",
}


@dataclass(frozen=True)
class Guard:
    """A fitted guard; see `fit`."""

    mean: NDArray[np.float32]
    """(1024,) mean thumbnail, brightness 0 to about 1."""
    components: NDArray[np.float32]
    """(K, 1024) principal components: orthonormal rows, largest variance first."""
    scales: NDArray[np.float32]
    """(K,) standard deviation along each component."""
    thresholds: Mapping[str, float]
    """Score → threshold; an image with a score above its threshold is rejected."""
    fitted: Mapping[str, float]
    """images and groups of the fit; rejected: fraction of held-out slices above a threshold."""

    def scores(self, image: Image.Image) -> dict[str, float]:
        """All scores of an upright image of mode L or RGB; higher means more unusual. About 0.1 ms.

        blank 0-1, colour 0-1, border 0-1.5, smooth up to 1, residual (root mean square brightness), distance (root
        mean square of standard deviations), orientation (residual divided by the smallest residual of the rotated and
        vertically flipped image).
        """
        return self.scores_of([thumbnail(image)])[0]

    thumbnail = staticmethod(thumbnail)

    def scores_of(self, thumbnails: Sequence[Thumbnail]) -> list[dict[str, float]]:
        """As `scores`, for several thumbnails: identical values, in a third of the time per image."""
        plain, brightness = thumbnail_scores(thumbnails)
        return _by_image({**plain, **self._distances(brightness)})

    def judge(self, scores: Mapping[str, float]) -> tuple[str, str] | None:
        """(code, reason) of the first score above its threshold; None for an in-distribution image."""
        for code, reason in _REASONS.items():
            # Negated comparison, so that NaN is rejected.
            if not scores[code] <= self.thresholds[code]:
                return code, f"{reason} ({code} {scores[code]:.3g}, at most {self.thresholds[code]:.3g})"
        return None

    @cached_property
    def _projection(self) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """The components and the mean as columns (1024, K + 1), and the mean's projections on these columns."""
        columns = np.ascontiguousarray(np.concatenate([self.components, self.mean[None]]).T)
        along = self.mean @ columns
        return columns, along[:-1], float(along[-1])

    def _distances(self, brightness: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """residual, distance and orientation, (N,) each, of (N, 32, 32) thumbnails."""
        parts = [self._distances_of_few(brightness[at : at + _AT_ONCE]) for at in range(0, len(brightness), _AT_ONCE)]
        return {name: np.concatenate([part[name] for part in parts]) for name in _DISTANCES}

    def _distances_of_few(self, brightness: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        # Flipped top to bottom, and rotated by 90 degrees both ways. The fit includes every slice's left-right mirror
        # image, so a rotation by 180 degrees has the same residual as the flip.
        turned = np.empty((len(brightness), 4, SIZE, SIZE), np.float32)
        on_side = brightness.transpose(0, 2, 1)
        turned[:, 0], turned[:, 1] = brightness, brightness[:, ::-1]
        turned[:, 2], turned[:, 3] = on_side[:, ::-1], on_side[:, :, ::-1]
        columns, offset, mean_squared = self._projection
        # One matrix product per image instead of one for all: the result is then independent of the batch, and the
        # product is too small for BLAS to start threads, which would compete with the engine.
        along = turned.reshape(-1, 4, SIZE * SIZE) @ columns  # (N, 4, K + 1)
        places = along[:, :, :-1] - offset
        # Pythagoras: the components are orthonormal, and rotation permutes pixels. The squared distance from the mean
        # is expanded, so that it needs no second matrix product.
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
        """Write one `.npz` file without pickles, which `read` reads back exactly."""
        about = {"format": _FORMAT, "thresholds": dict(self.thresholds), "fitted": dict(self.fitted)}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with path.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)

    @classmethod
    def read(cls, path: Path) -> Guard:
        """The guard that `write` wrote. Raises BundleError for anything else. Does not verify the file's SHA-256."""
        try:
            return cls.of(read_once(path, LARGEST, "guard"), path)
        except FileNotFoundError as error:
            raise BundleError(f"{path} does not exist. Copy the bundle again, or export again.") from error

    @classmethod
    def of(cls, content: bytes, path: Path) -> Guard:
        """The guard parsed from `content`. path: its file, for messages. Raises BundleError as `read`."""
        try:
            found = arrays_of(content, _SIZES)
            about = parse(str(found.pop("about")), str(path))
            exactly(about, str(path), ("format", "thresholds", "fitted"))
            arrays = {name: np.ascontiguousarray(found[name], dtype=np.float32) for name in _ARRAYS}
            guard = cls(thresholds=about["thresholds"], fitted=about["fitted"], **arrays)
            _check(guard, about["format"])
        except Exception as error:  # zipfile, zlib, numpy and json raise different types
            raise BundleError(f"{path} is not a guard file of this runtime ({error}). Export again.") from error
        return guard


def fit(images: Iterable[Image.Image], groups: Sequence[int] | NDArray[Any] | None = None) -> Guard:
    """A guard fitted on training slices.

    images: N upright images of mode L or RGB, from `runtime.read_image`; at least 16, a few thousand are sufficient.
    groups: (N,) patient of each slice; thresholds are set on patients held out of the fit (cross-validation).
        Without groups, every slice counts as its own patient, and the thresholds are too strict for new patients.

    About 1 % of held-out slices are above a threshold; the fraction is `fitted["rejected"]`. Raises InputError for
    fewer than 16 images or fewer than two groups. Takes seconds for thousands of slices.
    """
    thumbnails = [thumbnail(image) for image in images]
    count = len(thumbnails)
    if count < 16:
        raise InputError(f"images has {count} slices; fitting a guard requires at least 16. Give more slices.")
    members = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(members) != count or members.max() < 1:
        raise InputError(
            f"groups has {len(members)} entries and {members.max() + 1} patients for {count} images; expected one "
            "entry per image, and at least two patients."
        )
    plain, stack = thumbnail_scores(thumbnails)
    kept = max(1, min(COMPONENTS, count // 8))
    left_out = {name: np.empty(count, np.float32) for name in _DISTANCES}
    for fold in range(min(FOLDS, int(members.max()) + 1)):
        others = members % FOLDS == fold
        for name, values in Guard(*_components(stack[~others], kept), {}, {})._distances(stack[others]).items():
            left_out[name][others] = values
    new = {**plain, **left_out}
    components = _components(stack, kept)
    # With few slices, fitted slices have larger distances along the components than new ones; they must pass too.
    seen = {**plain, **Guard(*components, {}, {})._distances(stack)}
    thresholds = {code: max(_threshold(code, part[code]) for part in (new, seen)) for code in _REASONS}
    fitted = Guard(*components, thresholds, {})
    rejected = float(np.mean([fitted.judge(scores) is not None for scores in _by_image(new)]))
    about = {"images": float(count), "groups": float(members.max() + 1), "rejected": rejected}
    return Guard(*components, thresholds, about)


def _by_image(scores: Mapping[str, NDArray[Any]]) -> list[dict[str, float]]:
    """N dictionaries of numbers, from a dictionary of (N,) arrays."""
    rows = zip(*(values.tolist() for values in scores.values()), strict=True)
    return [dict(zip(scores, row, strict=True)) for row in rows]


def _components(
    stack: NDArray[np.float32], kept: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Mean (1024,), and the first `kept` principal components (K, 1024) and their standard deviations (K,), of
    (N, 32, 32) thumbnails.

    Each thumbnail is also included mirrored left to right, because sites use both conventions and both must have the
    same score.
    """
    rows = np.concatenate([stack, stack[:, :, ::-1]]).reshape(2 * len(stack), -1).astype(np.float64)
    mean = rows.mean(axis=0)
    centred = rows - mean
    # Eigenvectors of the smaller matrix: covariance (pixels x pixels) or Gram (slices x slices).
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
        return (1.0 + float(values.max())) / 2.0  # half the lowest contrast, or structure, of the slices
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
        raise ValueError("'fitted' has values that are not numbers")
