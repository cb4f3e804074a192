"""Sets of slices whose people are known, to measure what `identify_patients` claims: real ones in part, and phantoms.

python -m tests.train.patient_sets [NAME ...]     # the rows of the table in docs/PATIENTS.md
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from stageproof.train.data.patients.from_pixels import identify_patients
from stageproof.train.data.patients.thumbnails import directions, thumbnail
from stageproof.train.data.phantom.__main__ import draw_slice

HEADS = Path(__file__).resolve().parents[3] / "shared" / "alzheimer_mri" / "train.parquet"
"""160 people, 32 slices each; the file says of no slice whose it is, and the pixels of the whole file do."""


@dataclass(frozen=True)
class Row:
    """What was claimed of one set, and what is true."""

    people: int
    slices: int
    verdict: str
    groups: int
    torn: int
    """People in two groups."""
    joined: int
    """Groups of several people."""
    aside: int
    """Slices that are set aside."""
    error: float

    @property
    def wrong(self) -> bool:
        """Whether the claim is false."""
        return self.verdict != "unknown" and (self.torn > 0 or (self.verdict == "patients" and self.joined > 0))

    def line(self, name: str) -> str:
        stated = "" if self.verdict == "unknown" else f"{self.error:.4f}"
        torn, groups = ("", "") if self.verdict == "unknown" else (self.torn, self.groups)
        joined, aside = ("", "") if self.verdict == "unknown" else (self.joined, self.aside)
        cells = (name, self.people, self.slices, self.verdict, groups, torn, joined, aside, stated)
        return f"| {' | '.join(map(str, cells))} |"


def measured(pixels: np.ndarray, people: np.ndarray) -> Row:
    """What `identify_patients` says of (N, S, S) uint8 slices of the (N,) people."""
    found = identify_patients(np.array([thumbnail(Image.fromarray(one)) for one in pixels]))
    groups, whose = found.groups[~found.undecided], people[~found.undecided]
    torn = sum(len(np.unique(groups[whose == one])) > 1 for one in np.unique(whose))
    joined = sum(len(np.unique(whose[groups == one])) > 1 for one in np.unique(groups))
    aside = int(found.undecided.sum())
    return Row(
        len(np.unique(people)), len(people), found.verdict, len(np.unique(groups)), torn, joined, aside, found.error
    )


def augmented(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A grey slice flipped, turned to ±15°, zoomed and shifted, brighter or darker, noisy, and saved as JPEG anew.

    pixels: (S, S) uint8.
    """
    image = Image.fromarray(pixels)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.3:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    turn, zoom = np.deg2rad(rng.uniform(-15, 15)), rng.uniform(0.85, 1.15)
    middle, right, down = image.width / 2, *(rng.uniform(-0.08, 0.08, 2) * image.width)
    cosine, sine = np.cos(turn) / zoom, np.sin(turn) / zoom
    matrix = (
        *(cosine, sine, middle - cosine * (middle + right) - sine * (middle + down)),
        *(-sine, cosine, middle + sine * (middle + right) - cosine * (middle + down)),
    )
    image = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    values = np.asarray(image) * rng.uniform(0.75, 1.25)
    values += rng.normal(0, rng.uniform(0, 10), values.shape)
    return compressed(np.clip(values, 0, 255).astype(np.uint8), int(rng.integers(50, 96)))


def compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    """The slice after JPEG at this quality."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


Set = tuple[np.ndarray, np.ndarray]
"""(N, S, S) uint8 slices, person by person and in order of height, and their (N,) people."""


@cache
def heads(first: int = 0, last: int = 160) -> Set:
    """The slices of real people `first` to `last`. Two slices correlate above 0.98 only within a person here."""
    import pyarrow.parquet
    from scipy.sparse.csgraph import connected_components

    column = pyarrow.parquet.read_table(HEADS, columns=["image"])["image"].to_pylist()
    pixels = np.array([np.asarray(Image.open(io.BytesIO(one["bytes"])).convert("L")) for one in column])
    vectors = directions(np.array([thumbnail(Image.fromarray(one)) for one in pixels]), 32)
    people = connected_components(vectors @ vectors.T > 0.98, directed=False)[1]
    assert (np.bincount(people) == 32).all()
    order = np.concatenate([_by_height(np.flatnonzero(people == one), vectors) for one in range(first, last)])
    return pixels[order], people[order]


def _by_height(members: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    near = (1 - vectors[members] @ vectors[members].T + 1e-3) ** -2
    np.fill_diagonal(near, 0)
    return members[np.argsort(np.linalg.eigh(np.diag(near.sum(1)) - near)[1][:, 1])]


@cache
def phantoms(people: int = 24, slices: int = 32, size: int = 64, seed: int = 1) -> Set:
    levels = np.linspace(0.08, 0.92, slices)
    drawn = [draw_slice(one % 4, one, level, size=size, seed=seed) for one in range(people) for level in levels]
    return np.array(drawn), np.repeat(np.arange(people), slices)


def at_random(source: Set, share: float, seed: int) -> Set:
    """A random share of the slices."""
    kept = np.sort(np.random.default_rng(seed).permutation(len(source[1]))[: round(share * len(source[1]))])
    return source[0][kept], source[1][kept]


def with_copies(source: Set, copies: int, share: float = 1.0, *, mirrored: bool = False, seed: int = 0) -> Set:
    """The slices, and copies of a share of them."""
    rng = np.random.default_rng(seed)
    chosen = np.repeat(np.flatnonzero(rng.random(len(source[1])) < share), copies)
    more = [source[0][at][:, ::-1] if mirrored else augmented(source[0][at], rng) for at in chosen]
    return np.concatenate([source[0], np.array(more)]), np.concatenate([source[1], source[1][chosen]])


def every_second(source: Set, step: int = 2) -> Set:
    return source[0][::step], source[1][::step]


def without_parts(source: Set, lost: int, seed: int = 0) -> Set:
    """Each person lacks so many slices in a row, somewhere."""
    rng, kept = np.random.default_rng(seed), np.ones(len(source[1]), bool)
    for one in np.unique(source[1]):
        own = np.flatnonzero(source[1] == one)
        start = rng.integers(0, len(own) - lost + 1)
        kept[own[start : start + lost]] = False
    return source[0][kept], source[1][kept]


def without_middle(source: Set, lost: int) -> Set:
    """All people lack the same slices in the middle: nothing shows which lower part belongs to which upper one."""
    place = np.arange(len(source[1])) % np.bincount(source[1])[source[1][0]]
    kept = np.abs(place - place.max() / 2) > lost / 2
    return source[0][kept], source[1][kept]


def of_any_length(source: Set, fewest: int, seed: int = 0) -> Set:
    """Each person has from `fewest` to all of their slices, in a row."""
    rng, kept = np.random.default_rng(seed), np.zeros(len(source[1]), bool)
    for one in np.unique(source[1]):
        own = np.flatnonzero(source[1] == one)
        length = int(rng.integers(fewest, len(own) + 1))
        start = rng.integers(0, len(own) - length + 1)
        kept[own[start : start + length]] = True
    return source[0][kept], source[1][kept]


def scanned_again(source: Set, scans: int = 2, share: float = 0.5, seed: int = 0) -> Set:
    """A share of the people scanned several times: the head lies a little differently, the noise is another."""
    rng = np.random.default_rng(seed)
    again = np.isin(source[1], np.unique(source[1])[: round(share * len(np.unique(source[1])))])
    pixels, people = [source[0]], [source[1]]
    for _ in range(scans - 1):
        moved = []
        for one in np.unique(source[1][again]):
            shift, turn = rng.uniform(-1, 1, 2), float(rng.uniform(-2, 2))
            for slice_ in source[0][source[1] == one]:
                image = Image.fromarray(slice_).rotate(turn, Image.Resampling.BILINEAR, translate=tuple(shift))
                moved.append(np.clip(np.asarray(image) + rng.normal(0, 4, slice_.shape), 0, 255).astype(np.uint8))
        pixels.append(np.array(moved))
        people.append(source[1][again])
    return np.concatenate(pixels), np.concatenate(people)


def noisy(source: Set, share: float, amount: float, seed: int = 0) -> Set:
    """Some slices were spoilt: their noise hides what is the person's own."""
    rng, pixels = np.random.default_rng(seed), source[0].copy()
    for at in np.flatnonzero(rng.random(len(pixels)) < share):
        pixels[at] = np.clip(pixels[at] + rng.normal(0, amount, pixels[at].shape), 0, 255)
    return pixels, source[1]


def quality(source: Set, value: int) -> Set:
    return np.array([compressed(one, value) for one in source[0]]), source[1]


def resized(source: Set, side: int) -> Set:
    return np.array([np.asarray(Image.fromarray(one).resize((side, side))) for one in source[0]]), source[1]


def other_plane(source: Set, size: int = 64) -> Set:
    """Sagittal slices, cut from the stacks of axial ones."""
    pixels, people = [], []
    for one in np.unique(source[1]):
        stack = source[0][source[1] == one]
        for at in np.linspace(0.3, 0.7, 24) * stack.shape[2]:
            pixels.append(np.asarray(Image.fromarray(stack[:, :, int(at)]).resize((size, size))))
            people.append(one)
    return np.array(pixels), np.array(people)


SHARES = {0.99: 5, 0.95: 5, 0.9: 5, 0.8: 5, 0.6: 5, 0.5: 5, 0.2: 5}

REAL: dict[str, Callable[[], Set]] = {"whole file": heads} | {
    f"{share:.0%} at random, seed {seed}": partial(lambda share, seed: at_random(heads(), share, seed), share, seed)
    for share, seeds in SHARES.items()
    for seed in range(seeds)
}
_HALF = partial(heads, 0, 60)
KINDS: dict[str, Callable[[Callable[[], Set]], Set]] = {
    "whole": lambda made: made(),
    "90% at random": lambda made: at_random(made(), 0.9, 0),
    "80% at random": lambda made: at_random(made(), 0.8, 0),
    "60% at random": lambda made: at_random(made(), 0.6, 0),
    "every second slice": lambda made: every_second(made()),
    "every fourth slice": lambda made: every_second(made(), 4),
    "4 slices in a row lost": lambda made: without_parts(made(), 4),
    "8 slices in a row lost": lambda made: without_parts(made(), 8),
    "all lack the middle 10": lambda made: without_middle(made(), 10),
    "3 to all slices in a row": lambda made: of_any_length(made(), 3),
    "16 to all slices in a row": lambda made: of_any_length(made(), 16),
    "half scanned twice": lambda made: scanned_again(made()),
    "all scanned three times, 80%": lambda made: at_random(scanned_again(made(), 3, 1.0), 0.8, 0),
    "1 copy of all": lambda made: with_copies(made(), 1),
    "2 copies of a quarter": lambda made: with_copies(made(), 2, 0.25),
    "1 mirrored copy of a quarter": lambda made: with_copies(made(), 1, 0.25, mirrored=True),
    "80% with 1 mirrored copy of a quarter": lambda made: at_random(
        with_copies(made(), 1, 0.25, mirrored=True), 0.8, 0
    ),
    "80% with 1 copy of half": lambda made: at_random(with_copies(made(), 1, 0.5), 0.8, 0),
    "JPEG quality 10": lambda made: quality(made(), 10),
    "80% at JPEG quality 10": lambda made: at_random(quality(made(), 10), 0.8, 0),
    "32 x 32 pixels": lambda made: resized(made(), 32),
    "a tenth spoilt by noise": lambda made: noisy(made(), 0.1, 40),
    "a tenth spoilt by more noise": lambda made: noisy(made(), 0.1, 90),
    "sagittal": lambda made: other_plane(made()),
    "sagittal, 80%": lambda made: at_random(other_plane(made()), 0.8, 0),
}
PHANTOM: dict[str, Callable[[], Set]] = {
    **{f"24 phantoms, {kind}": partial(make, partial(phantoms)) for kind, make in KINDS.items()},
    **{f"{n} phantoms, whole": partial(phantoms, n) for n in (5, 8, 12)},
    **{f"{n} phantoms, 80% at random": partial(lambda n: at_random(phantoms(n), 0.8, 0), n) for n in (5, 8, 12)},
    **{f"24 phantoms of {n} slices": partial(phantoms, 24, n) for n in (3, 6, 12, 60)},
    "24 phantoms, 10 copies of all": lambda: with_copies(phantoms(), 10),
    "60 phantoms of 16 slices": partial(phantoms, 60, 16),
    "60 phantoms of 16 slices, 80% at random": lambda: at_random(phantoms(60, 16), 0.8, 0),
}
PART: dict[str, Callable[[], Set]] = (
    {f"60 people, {kind}": partial(make, _HALF) for kind, make in KINDS.items()}
    | {f"{n} people, whole": partial(heads, 100, 100 + n) for n in (5, 8, 12, 20)}
    | {
        f"{n} people, 80% at random": partial(lambda n: at_random(heads(100, 100 + n), 0.8, 0), n)
        for n in (5, 8, 12, 20)
    }
)


def rows(names: list[str]) -> Iterator[tuple[str, Row, float]]:
    for name, make in (REAL | PART | PHANTOM).items():
        if not names or any(part in name for part in names):
            pixels, people = make()
            began = time.monotonic()
            yield name, measured(pixels, people), time.monotonic() - began


if __name__ == "__main__":
    for name, row, seconds in rows(sys.argv[1:]):
        sys.stdout.write(f"{row.line(name)} {seconds:.0f} s {'WRONG' if row.wrong else ''}\n")
        sys.stdout.flush()
