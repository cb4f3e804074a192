"""`Alignment`: registers pairs of slices that differ by rotation, reflection, shift and zoom.

Candidates are found by features that are invariant to these changes: magnitudes of the Fourier transform over the
angle, on rings about the centroid of the bright pixels (Reddy & Chatterji 1996 do so in the frequency plane). The
phases give the rotation; shift, zoom and rotation are then refined by Gauss-Newton steps (inverse compositional
algorithm, Baker & Matthews 2004).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

_RINGS, _ANGLES, _WAVES = 16, 64, 16
_REACH = 2.0  # radius of the outermost ring, in radii of the bright region
_STEPS = 5
_COARSE = 32  # image size for the refinement, pixels
_OVERLAP = 0.6  # minimum share of the frame that both images must cover
_BATCH = 512


class Alignment:
    """Registers pairs of N images.

    thumbnails: (N, S, S) uint8, S a multiple of 2.
    """

    def __init__(self, thumbnails: np.ndarray) -> None:
        self.thumbnails = thumbnails
        self.poses = np.empty((len(thumbnails), 3), np.float32)
        self.waves = np.empty((len(thumbnails), _RINGS, _WAVES), np.complex64)
        for start in range(0, len(thumbnails), _BATCH):
            rows = slice(start, start + _BATCH)
            self.poses[rows] = _pose(thumbnails[rows])
            self.waves[rows] = _rings(thumbnails[rows], self.poses[rows])

    def signatures(self) -> np.ndarray:
        """(N, 256) float32 of unit norm: features that are invariant to rotation, reflection, shift and zoom."""
        flat = np.abs(self.waves).reshape(len(self.waves), -1)
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
        flat -= flat.mean(axis=0)
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
        return flat

    def registered(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(K, S, S) uint8: the second image of each pair, registered to the first; 0 outside of its frame.

        first, second: (K,) int64 indices.
        """
        one, other = (torch.from_numpy(self.thumbnails[index]).float()[:, None] for index in (first, second))
        onto = torch.from_numpy(self._first_guess(first, second))
        onto = _fit(F.adaptive_avg_pool2d(one, _COARSE), F.adaptive_avg_pool2d(other, _COARSE), onto)
        seen, inside = _warped(other, onto)
        return (seen * inside)[:, 0].round().to(torch.uint8).numpy()

    def _first_guess(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(K, 2, 3) float32 affine maps from coordinates of the first image to the second, from poses and phases."""
        scores = []
        for waves in (self.waves[second], self.waves[second].conj()):  # unchanged, and reflected
            product = np.zeros((len(first), _ANGLES // 2 + 1), np.complex64)
            product[:, :_WAVES] = (self.waves[first] * waves.conj()).sum(axis=1)
            scores.append(np.fft.irfft(product, n=_ANGLES, axis=1))
        best = np.concatenate(scores, axis=1).argmax(axis=1)
        turn, mirror = (best % _ANGLES) * 2 * np.pi / _ANGLES, np.where(best < _ANGLES, 1.0, -1.0)
        mine, theirs = self.poses[first], self.poses[second]
        cosine, sine = np.cos(turn), np.sin(turn)
        linear = np.stack([cosine, sine, -sine * mirror, cosine * mirror], 1).reshape(-1, 2, 2)
        linear *= (theirs[:, 2] / mine[:, 2])[:, None, None]
        shift = theirs[:, :2] - np.einsum("kij,kj->ki", linear, mine[:, :2])
        return np.concatenate([linear, shift[:, :, None]], axis=2).astype(np.float32)


def _pose(thumbnails: np.ndarray) -> np.ndarray:
    """(N, 3) float32: centroid x, centroid y and radius of the bright region; the frame spans -1 to 1."""
    count, side, _ = thumbnails.shape
    values = thumbnails.astype(np.float32)
    bright = np.percentile(values.reshape(count, -1), 95, axis=1)[:, None, None]
    weight = np.clip((values / np.maximum(bright, 1e-6) - 0.15) / 0.2, 0, 1)
    along = (np.arange(side, dtype=np.float32) + 0.5) * 2 / side - 1
    mass = np.maximum(weight.sum(axis=(1, 2)), 1e-6)
    columns, rows = weight.sum(axis=1), weight.sum(axis=2)
    x, y = columns @ along / mass, rows @ along / mass
    spread = (columns + rows) @ (along * along) / mass - x * x - y * y
    return np.stack([x, y, np.sqrt(np.maximum(spread, 1e-2))], axis=1).astype(np.float32)


def _rings(thumbnails: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """(N, rings, waves) complex64: Fourier transforms over the angle, after centring and scaling to unit norm."""
    angle = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    radius = ((np.arange(_RINGS) + 0.5) * _REACH / _RINGS)[:, None]
    unit = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    places = (unit * poses[:, 2, None, None, None] + poses[:, None, None, :2]).astype(np.float32)
    pictures = torch.from_numpy(thumbnails).float()[:, None]
    rings = F.grid_sample(pictures, torch.from_numpy(places), align_corners=False)[:, 0].numpy()
    rings = rings * np.sqrt(radius / _REACH).astype(np.float32)  # weight by area: outer rings cover more pixels
    rings -= rings.mean(axis=(1, 2), keepdims=True)
    rings /= np.maximum(np.linalg.norm(rings, axis=(1, 2), keepdims=True), 1e-6)
    return np.fft.rfft(rings, axis=2)[:, :, :_WAVES].astype(np.complex64)


def _warped(pictures: torch.Tensor, onto: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(K, 1, S, S) each: the images warped by `onto`, and a mask that is 1 inside of their frame."""
    places = F.affine_grid(onto, list(pictures.shape), align_corners=False)
    inside = (places.abs() <= 1 - 1 / pictures.shape[-1]).all(dim=-1)
    return F.grid_sample(pictures, places, align_corners=False), inside[:, None].float()


def _centred(pictures: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """(K, C, S, S): the mean inside of the mask subtracted, and 0 outside."""
    total = inside.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return (pictures - (pictures * inside).sum(dim=(2, 3), keepdim=True) / total) * inside


def _correlation(one: torch.Tensor, other: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """(K,) correlations inside of the mask; -1 if the mask is too small."""
    first, second = _centred(one, inside), _centred(other, inside)
    norm = (first.square().sum(dim=(1, 2, 3)) * second.square().sum(dim=(1, 2, 3))).sqrt()
    value = (first * second).sum(dim=(1, 2, 3)) / norm.clamp(min=1e-6)
    return torch.where(inside.mean(dim=(1, 2, 3)) >= _OVERLAP, value, -torch.ones_like(value))


def _fit(one: torch.Tensor, other: torch.Tensor, onto: torch.Tensor) -> torch.Tensor:
    """(K, 2, 3): `onto` refined by Gauss-Newton steps; of all steps the one with the highest correlation."""
    slope = _slopes(one)
    best, chosen = torch.full((len(one),), -2.0), onto.clone()
    for step in range(_STEPS + 1):
        seen, inside = _warped(other, onto)
        similarity = _correlation(one, seen, inside)
        better = similarity > best
        best, chosen[better] = torch.where(better, similarity, best), onto[better]
        if step < _STEPS:
            onto = onto @ _inverse(_step(_centred(one, inside), _centred(seen, inside), _centred(slope, inside)))
    return chosen


def _slopes(one: torch.Tensor) -> torch.Tensor:
    """(K, 4, S, S): derivatives of the image by zoom, rotation, shift right and shift down."""
    side = one.shape[-1]
    down, right = torch.gradient(one[:, 0], spacing=2 / side, dim=(1, 2))
    along = (torch.arange(side) + 0.5) * 2 / side - 1
    x, y = along[None, :], along[:, None]
    return torch.stack([right * x + down * y, down * x - right * y, right, down], dim=1)


def _step(one: torch.Tensor, seen: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """(K, 4): zoom, rotation and shifts that minimise the residual, to first order."""
    gain = (one * seen).sum(dim=(1, 2, 3), keepdim=True) / seen.square().sum(dim=(1, 2, 3), keepdim=True).clamp(
        min=1e-6
    )
    residual = (gain * seen - one).flatten(1)[:, :, None]
    slope = slope.flatten(2)
    normal = slope @ slope.transpose(1, 2)
    normal = normal + 1e-4 * torch.diag_embed(normal.diagonal(dim1=1, dim2=2) + 1.0)
    return torch.linalg.solve(normal, slope @ residual)[:, :, 0].clamp(-0.2, 0.2)


def _inverse(change: torch.Tensor) -> torch.Tensor:
    """(K, 3, 3): the inverse of a zoom, rotation and shift."""
    zoom, turn, right, down = change.unbind(dim=1)
    zero, one = torch.zeros_like(zoom), torch.ones_like(zoom)
    rows = [1 + zoom, -turn, right, turn, 1 + zoom, down, zero, zero, one]
    return torch.linalg.inv(torch.stack(rows, dim=1).reshape(-1, 3, 3))
