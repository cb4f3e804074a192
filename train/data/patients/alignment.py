"""How alike two slices are once one is turned, mirrored, shifted and zoomed onto the other.

A slice is found again among others by what these changes leave alone: magnitudes of the Fourier transform over the
angle, on rings about the middle of what is bright (Reddy & Chatterji 1996 do so in the frequency plane). The phases
give the turn; shift, zoom and turn are then fitted by Gauss-Newton steps (Baker & Matthews 2004, the inverse
compositional algorithm).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

_RINGS, _ANGLES, _WAVES = 16, 64, 16
_REACH = 2.0  # outermost ring, in radii of what is bright
_STEPS = 5
_COARSE = 32  # side at which the fit is made
_OVERLAP = 0.6  # share of the frame that both pictures must show
_BATCH = 512


class Alignment:
    """Aligns pairs among N pictures.

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
        """(N, 256) float32 of unit norm: alike where pictures are, however they are turned, mirrored, moved, zoomed."""
        flat = np.abs(self.waves).reshape(len(self.waves), -1)
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
        flat -= flat.mean(axis=0)
        flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
        return flat

    def laid(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(K, S, S) uint8: the second picture of each pair, laid onto the first; 0 outside its frame.

        first, second: (K,) int64 positions.
        """
        one, other = (torch.from_numpy(self.thumbnails[index]).float()[:, None] for index in (first, second))
        onto = torch.from_numpy(self._first_guess(first, second))
        onto = _fit(F.adaptive_avg_pool2d(one, _COARSE), F.adaptive_avg_pool2d(other, _COARSE), onto)
        seen, inside = _moved(other, onto)
        return (seen * inside)[:, 0].round().to(torch.uint8).numpy()

    def _first_guess(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """(K, 2, 3) float32 map from places in the first picture to places in the second, by poses and phases."""
        scores = []
        for waves in (self.waves[second], self.waves[second].conj()):  # as it is, and mirrored
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
    """(N, 3) float32: middle x, middle y and radius of what is bright; the frame spans -1 to 1."""
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
    """(N, rings, waves) complex64: Fourier transforms over the angle, of pictures made mean-free and of unit norm."""
    angle = np.arange(_ANGLES) * 2 * np.pi / _ANGLES
    radius = ((np.arange(_RINGS) + 0.5) * _REACH / _RINGS)[:, None]
    unit = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    places = (unit * poses[:, 2, None, None, None] + poses[:, None, None, :2]).astype(np.float32)
    pictures = torch.from_numpy(thumbnails).float()[:, None]
    rings = F.grid_sample(pictures, torch.from_numpy(places), align_corners=False)[:, 0].numpy()
    rings = rings * np.sqrt(radius / _REACH).astype(np.float32)  # an outer ring stands for more of the picture
    rings -= rings.mean(axis=(1, 2), keepdims=True)
    rings /= np.maximum(np.linalg.norm(rings, axis=(1, 2), keepdims=True), 1e-6)
    return np.fft.rfft(rings, axis=2)[:, :, :_WAVES].astype(np.complex64)


def _moved(pictures: torch.Tensor, onto: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(K, 1, S, S) each: the pictures seen through `onto`, and 1 where that lies inside their frame."""
    places = F.affine_grid(onto, list(pictures.shape), align_corners=False)
    inside = (places.abs() <= 1 - 1 / pictures.shape[-1]).all(dim=-1)
    return F.grid_sample(pictures, places, align_corners=False), inside[:, None].float()


def _centred(pictures: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """(K, C, S, S): mean-free over what is inside, and 0 elsewhere."""
    total = inside.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    return (pictures - (pictures * inside).sum(dim=(2, 3), keepdim=True) / total) * inside


def _correlation(one: torch.Tensor, other: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """(K,) correlations where `inside` is 1; -1 where that is too little of the frame."""
    first, second = _centred(one, inside), _centred(other, inside)
    norm = (first.square().sum(dim=(1, 2, 3)) * second.square().sum(dim=(1, 2, 3))).sqrt()
    value = (first * second).sum(dim=(1, 2, 3)) / norm.clamp(min=1e-6)
    return torch.where(inside.mean(dim=(1, 2, 3)) >= _OVERLAP, value, -torch.ones_like(value))


def _fit(one: torch.Tensor, other: torch.Tensor, onto: torch.Tensor) -> torch.Tensor:
    """(K, 2, 3): `onto` after the Gauss-Newton step, of a few, that made the pictures most alike."""
    slope = _slopes(one)
    best, chosen = torch.full((len(one),), -2.0), onto.clone()
    for step in range(_STEPS + 1):
        seen, inside = _moved(other, onto)
        likeness = _correlation(one, seen, inside)
        better = likeness > best
        best, chosen[better] = torch.where(better, likeness, best), onto[better]
        if step < _STEPS:
            onto = onto @ _undone(_step(_centred(one, inside), _centred(seen, inside), _centred(slope, inside)))
    return chosen


def _slopes(one: torch.Tensor) -> torch.Tensor:
    """(K, 4, S, S): how each pixel changes with zoom, turn, shift right and shift down."""
    side = one.shape[-1]
    down, right = torch.gradient(one[:, 0], spacing=2 / side, dim=(1, 2))
    along = (torch.arange(side) + 0.5) * 2 / side - 1
    x, y = along[None, :], along[:, None]
    return torch.stack([right * x + down * y, down * x - right * y, right, down], dim=1)


def _step(one: torch.Tensor, seen: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """(K, 4): zoom, turn and shifts that take the residual away, to first order."""
    gain = (one * seen).sum(dim=(1, 2, 3), keepdim=True) / seen.square().sum(dim=(1, 2, 3), keepdim=True).clamp(
        min=1e-6
    )
    residual = (gain * seen - one).flatten(1)[:, :, None]
    slope = slope.flatten(2)
    normal = slope @ slope.transpose(1, 2)
    normal = normal + 1e-4 * torch.diag_embed(normal.diagonal(dim1=1, dim2=2) + 1.0)
    return torch.linalg.solve(normal, slope @ residual)[:, :, 0].clamp(-0.2, 0.2)


def _undone(change: torch.Tensor) -> torch.Tensor:
    """(K, 3, 3): the inverse of a zoom, turn and shift."""
    zoom, turn, right, down = change.unbind(dim=1)
    zero, one = torch.zeros_like(zoom), torch.ones_like(zoom)
    rows = [1 + zoom, -turn, right, turn, 1 + zoom, down, zero, zero, one]
    return torch.linalg.inv(torch.stack(rows, dim=1).reshape(-1, 3, 3))
