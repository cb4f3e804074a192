"""Is this image one the model may speak about? Cheap checks, then the distance from the training slices.

The model itself cannot tell: a softmax names a stage for any cat. What is asked here is whether a 32 x 32 thumbnail
lies where the thumbnails of the training slices lie: how much of it their principal components leave unexplained
(residual), how far out it is among them (distance), and whether it would fit better turned (orientation). Everything
is fitted at export, with thresholds from patients that were left out of the fit; see Jackson & Mudholkar 1979,
Technometrics 21:341, for the two distances.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from runtime.errors import BundleError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 32
"""Side of the thumbnail, in pixels."""

COMPONENTS = 48
"""At most; with few training slices, one for every eight."""

FOLDS = 5
QUANTILE = 0.995
"""Share of left-out slices, and of fitted ones, that each threshold lets pass before its margin."""

_FORMAT = 1

_ARRAYS = ("mean", "components", "scales")

_BORDER = np.flatnonzero(np.pad(np.zeros((SIZE - 2, SIZE - 2), bool), 1, constant_values=True))

_REASONS = {
    # In the order they are asked: the first that holds is the most specific.
    "blank": "it is all but one even tone",
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
        plain, thumbnail = _measured(image)
        return {**plain, **self._distances(thumbnail)}

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

    def _distances(self, thumbnail: NDArray[np.float32]) -> dict[str, float]:
        # Upside down, and on either side. The fit knows every slice's mirror image too, so that mirroring left to right
        # changes no residual: turned by half scores as upside down does.
        turned = np.empty((4, SIZE, SIZE), np.float32)
        turned[0], turned[1], turned[2], turned[3] = thumbnail, thumbnail[::-1], thumbnail.T[::-1], thumbnail.T[:, ::-1]
        columns, offset, mean_squared = self._projection
        along = turned.reshape(4, -1) @ columns  # (4, K + 1)
        places = along[:, :-1] - offset
        # Pythagoras: the components are orthonormal, and turning changes no pixel's value. The squared distance from
        # the mean is expanded, so that one product serves for it and for the places.
        flat = thumbnail.reshape(-1)
        whole = float(flat @ flat) + mean_squared - 2.0 * along[:, -1]
        residuals = np.sqrt(np.maximum(whole - np.einsum("ij,ij->i", places, places), 1e-9) / flat.size)
        scaled = places[0] / self.scales
        return {
            "residual": float(residuals[0]),
            "distance": float(np.sqrt(scaled @ scaled / len(scaled))),
            "orientation": float(residuals[0] / residuals[1:].min()),
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
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                arrays = {name: np.ascontiguousarray(file[name], dtype=np.float32) for name in _ARRAYS}
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
    plain: list[dict[str, float]] = []
    thumbnails: list[NDArray[np.float32]] = []
    for image in images:
        scores_of_one, thumbnail = _measured(image)
        plain.append(scores_of_one)
        thumbnails.append(thumbnail)
    count = len(thumbnails)
    if count < 16:
        raise InputError(f"images holds {count} slices; a guard needs at least 16 to know what is usual.")
    members = np.arange(count) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(members) != count or members.max() < 1:
        raise InputError(
            f"groups has {len(members)} entries and {members.max() + 1} patients for {count} images; expected one "
            "entry an image, and at least two patients."
        )
    stack = np.stack(thumbnails)
    kept = max(1, min(COMPONENTS, count // 8))
    scores: list[dict[str, float]] = [{} for _ in range(count)]
    for fold in range(min(FOLDS, int(members.max()) + 1)):
        left_out = members % FOLDS == fold
        guard = Guard(*_components(stack[~left_out], kept), {}, {})
        for index in np.flatnonzero(left_out):
            scores[index] = {**plain[index], **guard._distances(stack[index])}
    fitted = Guard(*_components(stack, kept), {}, {})
    # Slices that were fitted lie further along the components than new ones where there are few, and must pass too.
    seen = [{**one, **fitted._distances(thumbnail)} for one, thumbnail in zip(plain, stack, strict=True)]
    thresholds = {code: max(_threshold(code, part) for part in (scores, seen)) for code in _REASONS}
    fitted = Guard(fitted.mean, fitted.components, fitted.scales, thresholds, {})
    rejected = float(np.mean([fitted.judge(score) is not None for score in scores]))
    about = {"images": float(count), "groups": float(members.max() + 1), "rejected": rejected}
    return Guard(fitted.mean, fitted.components, fitted.scales, thresholds, about)


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


def _threshold(code: str, scores: Sequence[Mapping[str, float]]) -> float:
    values = np.array([score[code] for score in scores])
    usual = float(np.quantile(values, QUANTILE))
    if code in ("blank", "smooth"):
        return (1.0 + float(values.max())) / 2.0  # half the least contrast, or structure, seen
    if code in ("colour", "border"):
        return usual + 0.05
    return usual * 1.05


def _measured(image: Image.Image) -> tuple[dict[str, float], NDArray[np.float32]]:
    """The scores that need no fit, and the thumbnail: (32, 32), grey, each pixel the mean of the area it stands for.

    Its bright end stands at 1, because scanners and exporters scale brightness as they like; 1.5 is the most.
    """
    if image.mode not in ("L", "RGB"):
        raise InputError(f"the image has mode {image.mode}; expected L or RGB. Read it with runtime.read_image.")
    width, height = image.size
    if width % SIZE or height % SIZE:
        small = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    else:
        small = image.reduce((width // SIZE, height // SIZE))  # the same mean, rounded once, in a quarter of the time
    colour = 0.0
    if image.mode == "RGB":
        planes = np.asarray(small, dtype=np.float32)
        colour = float((planes.max(axis=2) - planes.min(axis=2)).mean() / 255.0)
        small = small.convert("L")
    pixels = np.frombuffer(small.tobytes(), np.uint8)
    edge = pixels.size // 100  # the 1st and the 99th percentile, without np.percentile's overhead
    ordered = np.partition(pixels, (edge, pixels.size - 1 - edge))
    low, high = float(ordered[edge]), float(ordered[-1 - edge])
    bright = max(high, 1.0)
    thumbnail = pixels.reshape(SIZE, SIZE) / np.float32(bright)
    scores = {
        "blank": 1.0 - (high - low) / 255.0,
        "colour": colour,
        "border": int(np.add.reduce(pixels[_BORDER], dtype=np.int64)) / _BORDER.size / bright,
        "smooth": _smoothness(thumbnail),
    }
    return scores, np.minimum(thumbnail, np.float32(1.5), out=thumbnail)


def _smoothness(thumbnail: NDArray[np.float32]) -> float:
    """1 less the mean difference of neighbouring pixels that both lie within the head."""
    inside = thumbnail > 0.2
    within = inside[:, 1:] & inside[:, :-1]
    pairs = np.count_nonzero(within)
    if not pairs:
        return 1.0
    steps = np.abs(thumbnail[:, 1:] - thumbnail[:, :-1])
    return 1.0 - float(np.add.reduce(steps, axis=None, where=within)) / int(pairs)


def _check(guard: Guard, form: object) -> None:
    if form != _FORMAT:
        raise ValueError(f"format {form!r}, expected {_FORMAT}")
    count = len(guard.scales)
    shapes = (guard.mean.shape, guard.components.shape, guard.scales.shape)
    if count < 1 or shapes != ((SIZE * SIZE,), (count, SIZE * SIZE), (count,)):
        raise ValueError(f"arrays of shapes {shapes}")
    if not all(np.isfinite(getattr(guard, name)).all() for name in _ARRAYS) or guard.scales.min() <= 0:
        raise ValueError("values that are not finite, or scales that are not positive")
    wrong = [code for code in _REASONS if not isinstance(guard.thresholds[code], float)]
    if wrong or set(guard.thresholds) != set(_REASONS):
        raise ValueError(f"thresholds {sorted(guard.thresholds)}, expected numbers for {sorted(_REASONS)}")
