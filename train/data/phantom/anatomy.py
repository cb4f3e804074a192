"""`brain`: the noise-free axial slice of a synthetic person, for `train.data.phantom`.

All structures are drawn from distances to analytic curves, in head units: the origin is the centre of the brain, x
points to the right of the image and y to the back of the head; both are 1 at the surface of an average brain (about
70 mm). No measured image, atlas or statistic is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

CSF, GREY, DEEP_GREY, WHITE = 0.10, 0.53, 0.64, 0.86
"""Signal of each tissue in a T1-weighted image, relative to the maximum."""

_ATROPHY = (0.0, 1.05, 2.1, 3.25)  # by stage; the ageing of a person is added, so that neighbouring stages overlap
_CORTEX, _CALLOSUM, _SOFT = 0.055, 0.045, 0.02  # head units: thickness of cortex and corpus callosum, width of a blur
_DIRECTIONS = np.linspace(-np.pi, np.pi, 721)  # steps of half a degree, for functions of the angle
_LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)  # axial levels of the tables below
# One side's lateral ventricle as a chain of five points, (x, y, radius) at each level: tip of the frontal horn,
# its root, body, atrium, tip of the occipital horn. A negative radius is a gap, where the slice passes below the body.
_VENTRICLE = np.array(
    [
        [(0.28, -0.33, 0.020), (0.36, -0.36, 0.050), (0.37, -0.37, 0.050), (0.28, -0.42, 0.056), (0.20, -0.30, 0.014)],
        [(0.20, -0.28, 0.020), (0.20, -0.22, 0.036), (0.11, -0.20, 0.050), (0.12, -0.24, 0.066), (0.14, -0.16, 0.034)],
        [(0.14, 0.02, -0.40), (0.15, 0.03, -0.30), (0.10, 0.04, -0.16), (0.12, 0.02, 0.060), (0.13, -0.02, 0.040)],
        [(0.30, 0.38, -0.08), (0.15, 0.34, 0.024), (0.12, 0.28, 0.050), (0.14, 0.28, 0.060), (0.15, 0.12, 0.034)],
        [(0.34, 0.46, -0.08), (0.26, 0.47, 0.020), (0.27, 0.46, 0.038), (0.25, 0.46, 0.040), (0.20, 0.26, 0.014)],
    ]
)


@dataclass(frozen=True)
class Person:
    """Parameters of a synthetic person and of their scan, the same in all slices."""

    axes: np.ndarray
    """(2,) half width and half length of the brain, in halves of the image."""
    outline: np.ndarray
    """(5, 2) amplitude and phase of the irregularities of the outline, by order from 1."""
    warp: np.ndarray
    """(3, 4) x amplitude, y amplitude, frequency and phase of a smooth deformation of the interior."""
    folds: np.ndarray
    """(12, 5) the sulci: waves around the head (order, slant, phase, drift with level, amplitude)."""
    depths: np.ndarray
    """(5, 3) depth of the sulci around the head (order, phase, amplitude)."""
    medial: np.ndarray
    """(4, 4) the sulci along the midline (frequency, slant, phase, drift with level)."""
    white: np.ndarray
    """(4, 4) inhomogeneity of the white matter (x frequency, y frequency, phase, amplitude)."""
    asymmetry: float
    """Relative difference in size of the two ventricles."""
    level_offset: float
    """Offset of the axial level of this person."""
    ageing: np.ndarray
    """(4,) individual atrophy, in units of about one stage: overall; in addition ventricles, sulci and hippocampi."""
    pose: np.ndarray
    """(3,) rotation in radians, shift right and shift down in halves of the image."""
    contrast: np.ndarray
    """(2,) gain and gamma of the scan."""
    bias: np.ndarray
    """(3,) bias field of the coil: slope along x, along y, and in radial direction."""
    noise: float
    """Standard deviation of the noise in each channel, relative to the maximum signal."""


def invent(seed: int, patient: int) -> Person:
    """Person number `patient` of the population `seed`; the same for every stage, level and size."""
    rng = np.random.default_rng([0x9E50, seed, patient])
    phase = lambda n: rng.uniform(0.0, 2.0 * np.pi, n)  # noqa: E731
    head = rng.normal(0.79, 0.022)
    width = head * rng.normal(0.945, 0.025)
    ageing = rng.normal(0.0, (0.08, 0.06, 0.06, 0.10))
    return Person(
        axes=np.array([width, head]),
        outline=np.stack([rng.normal(0.0, (0.004, 0.010, 0.006, 0.005, 0.004)), phase(5)], 1),
        warp=np.stack([rng.normal(0.0, 0.010, 3), rng.normal(0.0, 0.010, 3), rng.uniform(1.5, 4.0, 3), phase(3)], 1),
        folds=np.stack(
            [
                rng.integers(9, 24, 12),
                rng.normal(0.0, 7.0, 12),
                phase(12),
                rng.normal(0.0, 2.2, 12),
                rng.uniform(0.5, 1.0, 12),
            ],
            1,
        ),
        depths=np.stack([rng.integers(5, 17, 5), phase(5), rng.uniform(0.02, 0.06, 5)], 1),
        medial=np.stack([rng.uniform(9.0, 19.0, 4), rng.normal(0.0, 8.0, 4), phase(4), rng.normal(0.0, 2.0, 4)], 1),
        white=np.stack([*rng.normal(0.0, 7.0, (2, 4)), phase(4), rng.normal(0.0, 0.011, 4)], 1),
        asymmetry=float(rng.normal(0.0, 0.08)),
        level_offset=float(rng.normal(0.0, 0.025)),
        ageing=np.clip(ageing, -0.3, 0.3),
        pose=rng.normal(0.0, (0.035, 0.012, 0.012)),
        contrast=np.array([rng.normal(0.98, 0.05), np.exp(rng.normal(0.0, 0.07))]),
        bias=rng.normal(0.0, (0.05, 0.05, 0.05)),
        noise=float(rng.uniform(0.010, 0.026)),
    )


def brain(person: Person, stage: float, level: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(size, size) float64 in [0, 1]: the noise-free signal, and the share of brain in each pixel.

    stage: 0-3; whole numbers are indices in `runtime.labels.LABELS`, the atrophy between them is interpolated.
    level: 0 at the midbrain and the hippocampi, 1 above the bodies of the lateral ventricles.
    """
    level = float(np.clip(level + person.level_offset, 0.0, 1.0))
    overall, *own = person.ageing
    atrophy = float(np.interp(stage, range(len(_ATROPHY)), _ATROPHY))
    ventricles, sulci, hippocampi = (max(atrophy + overall + o, -0.6) for o in own)
    x, y = _head_coordinates(person, level, size)
    pixel = 2.0 / (size * person.axes.mean())  # head units; edges are blurred over one pixel, as in a scan
    angle = np.arctan2(x, -y)
    depth = _outline(person, level, x, angle) - np.sqrt(x * x + y * y)
    mirrored = np.abs(x) * (1.0 + person.asymmetry * np.clip(x * 4.0, -1.0, 1.0))

    ventricle = _ventricles(mirrored, y, level, ventricles)
    sulcus = _cortical_csf(person, level, sulci, (x, y, angle, depth), pixel)
    signal = WHITE + _waves(person.white, x, y)
    cortex = _CORTEX * (1.0 - 0.075 * sulci)
    ribbon = _inside(sulcus - cortex, 2.5 * _SOFT) * _inside(_CALLOSUM - ventricle, pixel)
    signal = _paint(signal, GREY, ribbon)
    signal = _deep_grey(signal, mirrored, y, level, pixel)
    # Partial volume: in a slice of finite thickness, pixels of a sulcus always contain some cortex.
    signal = _paint(signal, CSF, 0.88 * _inside(sulcus, pixel) * _inside(0.02 - ventricle, pixel))
    signal = _paint(signal, CSF, _inside(ventricle, 1.5 * pixel))
    if level < 0.3:
        signal = _basal(signal, mirrored, y, level, (ventricles, hippocampi), pixel)
    margin = (size - len(signal)) // 2
    return np.pad(np.clip(signal, 0.0, 1.0), margin), np.pad(_inside(-depth, pixel), margin)


def _head_coordinates(person: Person, level: float, size: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of each pixel centre in head units, without an equal margin on all sides that is outside of the brain."""
    margin = max(int((1.0 - 1.12 * person.axes.max() - np.abs(person.pose[1:]).max()) * size / 2.0), 0)
    centres = (np.arange(margin, size - margin) + 0.5) * (2.0 / size) - 1.0
    turn, right, down = person.pose
    x, y = centres[None, :] - right, centres[:, None] - down
    x, y = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    narrowing = np.array([1.0 - 0.07 * level**2, 1.0 - 0.03 * level**3])  # the brain is smaller at higher levels
    x, y = x / (person.axes[0] * narrowing[0]), y / (person.axes[1] * narrowing[1])
    dx, dy = np.zeros_like(x), np.zeros_like(y)
    for across, along, frequency, phase in person.warp:
        dx += across * np.sin(frequency * y + phase)
        dy += along * np.sin(frequency * x + phase)
    return x + dx, y + dy


def _outline(person: Person, level: float, x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Distance from the centre to the surface of the brain in the direction of each pixel; angle 0 is the forehead."""
    radius = 1.0 - 0.025 * np.cos(_DIRECTIONS)  # the forehead is narrower than the back
    for order, (amplitude, phase) in enumerate(person.outline, start=1):
        radius += amplitude * np.cos(order * _DIRECTIONS + phase)
    side = np.abs(_DIRECTIONS)
    low = 1.0 - level
    radius += low * (0.03 * np.exp(-(((side - 1.70) / 0.45) ** 2)) - 0.04 * np.exp(-(((side - 2.40) / 0.28) ** 2)))
    return np.interp(angle, _DIRECTIONS, radius) - 0.03 * np.exp(-((x / 0.05) ** 2))


def _cortical_csf(person: Person, level: float, sulci: float, where: tuple, pixel: float) -> np.ndarray:
    """Signed distance to the CSF around the cortex: sulci, longitudinal fissure and Sylvian fissures."""
    x, y, angle, depth = where
    width = 0.009 * sulci + 0.0012
    # Around the head: sulci are the zero crossings of a sum of waves; slower waves determine their depth.
    bent = angle + 0.05 * np.sin(9.0 * depth + 3.0 * angle) + 0.04 * np.sin(16.0 * depth - 7.0 * angle)
    folds = np.zeros_like(x)
    for order, slant, phase, drift, amplitude in person.folds:
        folds += amplitude * np.cos(order * bent + slant * depth + phase + drift * level)
    reach = np.full_like(_DIRECTIONS, 0.25)
    for order, phase, amplitude in person.depths:
        reach += amplitude * np.cos(order * _DIRECTIONS + phase + level)
    reach = np.interp(angle, _DIRECTIONS, np.maximum(reach, 0.06))
    opening = np.clip(5.0 * reach, 0.3, 2.0) * np.clip(1.7 - 1.3 * depth / reach, 0.3, 1.7)  # deep sulci are wider
    nearest = _crossing(folds, pixel) - width * opening + 0.8 * np.maximum(depth - reach, 0.0)
    nearest = np.minimum(nearest, depth - 0.5 * width)

    # Longitudinal fissure: open in front of and behind the corpus callosum, and everywhere at high levels.
    front = np.interp(level, _LEVELS, (-0.56, -0.60, -0.56, -0.62, 0.05))
    back = np.interp(level, _LEVELS, (0.50, 0.60, 0.64, 0.66, 0.05))
    beyond = np.minimum(np.maximum(y - front, 0.0), np.maximum(back - y, 0.0))
    wavering = x + 0.012 * np.sin(11.0 * y + person.white[0, 2])
    wander = folds
    fissure = np.abs(wavering) - 0.7 * width + beyond
    folds = np.zeros_like(x)
    for frequency, slant, phase, drift in person.medial:
        folds += np.cos(frequency * (y + 0.04 * np.sign(x)) + slant * np.abs(x) + phase + drift * level)
    side = _crossing(folds, pixel) - 0.6 * width + 0.9 * np.maximum(np.abs(x) - 0.17, 0.0) + beyond
    nearest = np.minimum(nearest, np.minimum(fissure, side))

    # Sylvian fissure and insula, which upper slices do not contain; both vary with the sulci around them.
    shut = 0.25 * max(level - 0.5, 0.0)
    across = np.abs(x)
    insula = _chain(across, y, [(0.66, -0.30, -0.02), (0.58, -0.10, 0.008), (0.57, 0.06, 0.008), (0.64, 0.24, -0.02)])
    mouth = _chain(across, y, [(0.57, -0.02, 0.0), (0.78, 0.02, 0.006), (1.05, -0.06, 0.03)])
    lateral = np.minimum(insula, mouth) + 0.016 * wander - 1.2 * width + shut
    return np.minimum(nearest, lateral)


def _ventricles(across: np.ndarray, y: np.ndarray, level: float, atrophy: float) -> np.ndarray:
    """Signed distance to the lateral and third ventricles."""
    widening = 0.66 + 0.50 * atrophy
    chain = []
    for point in _VENTRICLE:
        px, py, radius = (np.interp(level, _LEVELS, point[:, k]) for k in range(3))
        wide = radius * widening if radius > 0.0 else radius
        # With atrophy the outer wall moves and the septum does not; the horns extend outwards and backwards.
        chain.append((px + 0.75 * max(wide - radius, -0.02), py * (1.0 + 0.03 * atrophy), wide))
    lateral = _chain(across, y, chain, rounding=0.06)
    third = _chain(across, y, [(0.0, -0.10, 0.008), (0.0, 0.12, 0.012)]) - 0.010 * (atrophy + 0.6)
    return np.minimum(lateral, third + 0.5 * max(level - 0.45, 0.2 - level, 0.0))


def _deep_grey(signal: np.ndarray, across: np.ndarray, y: np.ndarray, level: float, pixel: float) -> np.ndarray:
    """Paint caudate, putamen and thalamus if the slice contains them; the white matter between is the capsule."""
    caudate = float(np.interp(level, (0.15, 0.3, 0.75, 0.95), (0.0, 1.0, 1.0, 0.0)))
    nuclei = float(np.interp(level, (0.05, 0.2, 0.5, 0.66), (0.3, 1.0, 1.0, 0.0)))
    x0, y0 = (0.33, -0.14) if level < 0.6 else (0.27, -0.10)
    soft = 3.0 * _SOFT  # these nuclei fade into the white matter around them
    signal = _paint(signal, DEEP_GREY, caudate * _inside(_ellipse(across, y, (x0, y0), (0.07, 0.14), 0.35), soft))
    signal = _paint(signal, DEEP_GREY, nuclei * _inside(_ellipse(across, y, (0.42, 0.00), (0.075, 0.20), 0.12), soft))
    return _paint(
        signal, DEEP_GREY + 0.04, nuclei * _inside(_ellipse(across, y, (0.16, 0.14), (0.13, 0.17), -0.5), soft)
    )


def _basal(
    signal: np.ndarray, across: np.ndarray, y: np.ndarray, level: float, atrophy: tuple[float, float], pixel: float
) -> np.ndarray:
    """Paint structures of low slices: cistern and midbrain, hippocampi and temporal horns."""
    ventricles, hippocampi = atrophy
    show = float(np.interp(level, (0.18, 0.3), (1.0, 0.0)))
    cistern = _chain(across, y, [(0.25, 0.08, 0.0), (0.19, 0.24, 0.0), (0.0, 0.33, 0.012)], rounding=0.08)
    cistern = np.minimum(cistern, _chain(across, y, [(0.0, 0.33, 0.02), (0.0, 0.46, 0.008)]))
    signal = _paint(signal, CSF, 0.8 * show * _inside(cistern - 0.004 * ventricles, 2.0 * pixel))
    # CSF replaces the lost volume of the hippocampus, mostly on its outer side: the temporal horn.
    signal = _paint(signal, CSF, show * _inside(_ellipse(across, y, (0.40, 0.18), (0.09, 0.135), 0.35), 2.0 * pixel))
    left = 0.95 - 0.10 * hippocampi
    centre = (0.40 - 0.075 * (1.0 - left), 0.18 + 0.06 * (1.0 - left))
    body = _ellipse(across, y, centre, (0.09 * left, 0.135 * left), 0.35)
    return _paint(signal, GREY, show * _inside(body, 2.0 * pixel))


def _crossing(field: np.ndarray, pixel: float) -> np.ndarray:
    """First-order distance to the zero crossings of `field`, from its gradient (Taubin 1994)."""
    down, right = np.gradient(field, pixel)
    return np.abs(field) / np.sqrt(down * down + right * right + 4.0)


def _chain(x: np.ndarray, y: np.ndarray, points: list[tuple[float, float, float]], rounding: float = 0.0) -> np.ndarray:
    """Signed distance to a chain of rounded segments between points (x, y, radius), with smooth joints."""
    nearest = np.full(np.broadcast(x, y).shape, np.inf)
    for (x0, y0, r0), (x1, y1, r1) in pairwise(points):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
        away_x, away_y = x - x0 - along * dx, y - y0 - along * dy
        away = np.sqrt(away_x * away_x + away_y * away_y) - (r0 + along * (r1 - r0))
        if rounding and np.isfinite(nearest.flat[0]):
            fill = np.maximum(rounding - np.abs(nearest - away), 0.0)
            nearest = np.minimum(nearest, away) - fill * fill / (4.0 * rounding)
        else:
            nearest = np.minimum(nearest, away)
    return nearest


def _ellipse(x: np.ndarray, y: np.ndarray, centre: tuple, axes: tuple, tilt: float) -> np.ndarray:
    """Signed distance, first-order near the edge, to an ellipse rotated by `tilt` radians."""
    dx, dy = x - centre[0], y - centre[1]
    u = (dx * np.cos(tilt) + dy * np.sin(tilt)) / axes[0]
    v = (dy * np.cos(tilt) - dx * np.sin(tilt)) / axes[1]
    return (np.sqrt(u * u + v * v) - 1.0) * min(axes)


def _waves(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sum of plane waves."""
    total = np.zeros_like(x)
    for fx, fy, phase, amplitude in table:
        total += amplitude * np.cos(fx * x + fy * y + phase)
    return total


def _inside(distance: np.ndarray, width: float) -> np.ndarray:
    """Share of each pixel on the negative side of a signed distance, in [0, 1]."""
    return np.clip(0.5 - distance / width, 0.0, 1.0)


def _paint(signal: np.ndarray, tissue: float, share: np.ndarray) -> np.ndarray:
    """The signal with a `share` of each pixel replaced by a tissue (linear partial volume)."""
    return signal + share * (tissue - signal)
