"""Who is who: copies made by augmentation follow their original, and strangers stay strangers."""

from __future__ import annotations

import io
import resource
import sys
import time

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import adjusted_rand_score

from train.data.alignment import Alignment
from train.data.linking import link
from train.data.patients import directions, tell_apart, thumbnail
from train.data.phantom import draw_slice, phantom_samples


def augmented(pixels: np.ndarray, rng: np.random.Generator) -> Image.Image:
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
    file = io.BytesIO()
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=int(rng.integers(50, 96)))
    return Image.open(file)


@pytest.fixture(scope="module")
def population():
    """(people, 32 slices, 64, 64) uint8 of two phantom people."""
    levels = np.linspace(0.08, 0.92, 32)
    return np.array([[draw_slice(person % 4, person, level, size=64) for level in levels] for person in range(2)])


def with_copies(population, copies: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thumbnails, people, and which are copies."""
    rng = np.random.default_rng(0)
    shown, people, copied = [], [], []
    for person, stack in enumerate(population):
        for pixels in stack:
            shown += [thumbnail(Image.fromarray(pixels)), *(thumbnail(augmented(pixels, rng)) for _ in range(copies))]
            people += [person] * (1 + copies)
            copied += [False] + [True] * copies
    return np.array(shown), np.array(people), np.array(copied)


@pytest.mark.slow
def test_ten_copies_of_every_slice():
    samples = phantom_samples(6, 32, seed=1)
    pixels = [np.asarray(Image.open(io.BytesIO(image))) for image in samples.images]
    stacks = [[pixels[at] for at in np.flatnonzero(samples.groups == person)] for person in np.unique(samples.groups)]
    shown, people, copied = with_copies(stacks, 10)
    found = tell_apart(shown)
    assert found.found
    assert adjusted_rand_score(people, found.groups) >= 0.95
    assert found.chance < 0.01
    assert found.moved[copied].mean() > 0.9


def test_a_pair_is_as_alike_as_its_alignment_makes_it(population):
    one = population[0, 16]
    changed = [
        Image.fromarray(one).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        Image.fromarray(one).rotate(15, Image.Resampling.BILINEAR),
        Image.fromarray(np.roll(one, (5, -5), (0, 1))),
        Image.fromarray(one).resize((48, 48), Image.Resampling.BILINEAR).crop((-8, -8, 56, 56)),
        Image.fromarray(population[1, 16]),
    ]
    shown = np.array([one, *(thumbnail(image) for image in changed)])
    still, aligned = Alignment(shown).likeness(np.zeros(5, np.int64), np.arange(1, 6))
    assert (aligned[:4] > 0.98).all()
    assert (still[:4] < 0.95).all()
    assert aligned[4] < 0.97


def test_the_tree_is_that_of_all_pairs_where_nothing_is_moved(population):
    shown = population[:, ::2].reshape(-1, 64, 64)
    tree, seen = link(shown)
    assert len(tree) == len(shown) - 1
    assert len(np.unique(np.concatenate([tree.start, tree.end]))) == len(shown)
    assert set(zip(tree.start.tolist(), tree.end.tolist(), strict=True)) <= set(
        zip(seen.start.tolist(), seen.end.tolist(), strict=True)
    )
    every = directions(shown) @ directions(shown).T
    assert np.allclose(seen.still, every[seen.start, seen.end], atol=1e-4)


@pytest.mark.parametrize("side", [32, 64])
def test_no_people_among_textures(side):
    noise = np.random.default_rng(0).integers(0, 256, (150, side, side)).astype(np.uint8)
    found = tell_apart(noise)
    assert not found.found
    assert len(set(found.groups)) == 150
    assert not found.moved.any()


def photographs() -> list[Image.Image]:
    """Whole photographs that come with scikit-image and scikit-learn."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "brick", "camera", "chelsea", "clock", "coffee", "coins", "grass", "gravel", "moon", "page")
    pictures = [*(getattr(data, name)() for name in names), *load_sample_images().images]
    return [Image.fromarray(picture).convert("L") for picture in pictures]


def test_no_people_among_photographs():
    found = tell_apart(np.array([thumbnail(image) for image in photographs()]))
    assert not found.found
    assert len(set(found.groups)) == 13


@pytest.mark.slow
def test_no_people_among_pieces_of_photographs():
    pieces = [
        thumbnail(image.crop((x, y, x + 128, y + 128)))
        for image in photographs()
        for x in range(0, image.width - 127, 128)
        for y in range(0, image.height - 127, 128)
    ]
    assert not tell_apart(np.array(pieces)).found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_forty_thousand_slices_in_bounded_time_and_memory():
    """In less than 2 GB; the time is printed, since it depends on who else works here."""
    levels = np.linspace(0.08, 0.92, 32)
    drawn = [[draw_slice(person % 4, person, level) for level in levels] for person in range(114)]
    shown, people, _ = with_copies(drawn, 10)
    shown, people = shown[:40_000], people[:40_000]
    began = time.monotonic()
    found = tell_apart(shown)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    sys.stderr.write(f"{time.monotonic() - began:.0f} s, {peak / 1e9:.2f} GB\n")
    assert adjusted_rand_score(people, found.groups) >= 0.95
    assert peak < 2e9
