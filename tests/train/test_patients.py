"""Patients from image similarity: nobody is torn by a claim, copies follow their original, strangers stay strangers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from stageproof.train.data.patients.alignment import Alignment
from stageproof.train.data.patients.copies import copy_links
from stageproof.train.data.patients.from_pixels import Patients, identify_patients
from stageproof.train.data.patients.heights import gaps, heights, ordered
from stageproof.train.data.patients.peaks_over_threshold import chance_above, exceeded
from stageproof.train.data.patients.rejoining import join_fragments, strong_level
from stageproof.train.data.patients.residual import Residuals, close_pairs, residuals
from stageproof.train.data.patients.tearing import cut_bridges
from stageproof.train.data.patients.thumbnails import directions, thumbnail
from tests.train.patient_sets import (
    HEADS,
    PART,
    PHANTOM,
    REAL,
    at_random,
    augmented,
    measured,
    phantoms,
    with_copies,
    without_middle,
)

real = pytest.mark.skipif(not HEADS.exists(), reason="the real slices are not beside this checkout")


@pytest.fixture(scope="module")
def drawn():
    """12 phantoms of 16 slices: (N, 64, 64) uint8 and people."""
    return phantoms(12, 16)


@pytest.mark.slow  # tests/train/test_audit.py counts as many people of as many slices
def test_whole_phantoms_are_counted():
    row = measured(*phantoms(24, 32))
    assert (row.verdict, row.groups, row.torn, row.joined) == ("patients", 24, 0, 0)
    assert row.error <= 0.01


@pytest.mark.parametrize("seed", range(3))
def test_a_random_part_tears_nobody(drawn, seed):
    assert not measured(*at_random(drawn, 0.7, seed)).wrong


def test_where_all_lack_the_same_middle_nobody_is_torn(drawn):
    """Each half of a head is as alone as a whole person would be: the adversary of every gap."""
    assert not measured(*without_middle(drawn, 7)).wrong


def test_parts_of_a_head_in_two_positions_meet(drawn):
    """The lower slices of each head lie turned: side by side with the upper ones, and unlike them."""
    pixels, people = drawn[0].copy(), drawn[1]
    lower = np.arange(len(people)) % 16 < 8
    turned = [Image.fromarray(one).rotate(4, Image.Resampling.BICUBIC) for one in pixels[lower]]
    pixels[lower] = np.array([np.asarray(one) for one in turned])
    *_, maybe = copy_links(pixels, residuals(directions(pixels)), people * 2 + lower)
    own = maybe[people[maybe[:, 0]] == people[maybe[:, 1]]]
    assert len(np.unique(people[own])) >= 11


def test_two_people_in_one_person_s_place_are_no_patients():
    """Too few people for references: unknown, and identical pictures are one all the same."""
    pixels, _ = phantoms(3, 16)
    found = identify_patients(np.concatenate([pixels, pixels[:5]]))
    assert found.verdict == "unknown"
    assert found.error == 1
    assert found.count is None
    assert np.array_equal(found.groups[48:], found.groups[:5])


def test_what_is_written_of_the_similarity():
    found = Patients(
        np.arange(3), "patients", 0.005, 0.9, np.nan, np.empty(0), np.zeros(3, bool), np.arange(3), np.zeros(3, bool)
    )
    ends = {"below": 0.9, "above": None}
    assert found.similarity() == {"verdict": "patients", "groups": 3, "undecided": 0, "error": 0.005, **ends}
    assert found.found
    assert found.count == 3
    nothing = Patients(np.zeros(1, int), "unknown", 1.0, np.nan, np.nan, *[np.empty(0)] * 3, np.zeros(1, bool))
    ends = {"below": None, "above": None}
    assert nothing.similarity() == {"verdict": "unknown", "groups": None, "undecided": 0, "error": 1.0, **ends}


def test_residual_similarity_is_that_of_one_person_alone(drawn):
    slices = residuals(directions(drawn[0]))
    same = drawn[1][:, None] == drawn[1]
    alike = slices.left @ slices.left.T
    np.fill_diagonal(alike, np.nan)
    nearest = np.nanmax(np.where(same, alike, np.nan), axis=1)
    assert nearest.min() > strong_level(slices) > np.nanmax(np.where(same, np.nan, alike))


def test_slices_are_put_in_order(drawn):
    slices = residuals(directions(drawn[0]))
    shuffled = np.random.default_rng(0).permutation(np.arange(16, 32))
    found = ordered(shuffled, slices)
    assert found.tolist() in (list(range(16, 32)), list(range(31, 15, -1)))


def test_close_pairs_are_those_of_all_products():
    rows = np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32)
    first, second, values = close_pairs(rows, 2.0)
    every = np.triu(rows @ rows.T > 2.0, 1)
    assert np.array_equal(np.stack([first, second], 1), np.argwhere(every))
    assert np.allclose(values, (rows @ rows.T)[first, second])


TAILS = {
    "normal": lambda rng, count: rng.normal(5, 2, count),
    "exponential": lambda rng, count: rng.exponential(1.5, count),
    "heavy": lambda rng, count: rng.standard_t(6, count),
}


@pytest.mark.parametrize(("tail", "count"), [("normal", 300), ("exponential", 300), ("normal", 4000), ("heavy", 4000)])
def test_a_level_is_exceeded_no_more_often_than_was_said(tail, count):
    """Over many samples, a value drawn anew is above the level no more often than stated: the mean is what counts."""
    drawn = [TAILS[tail](np.random.default_rng(seed), count) for seed in range(200)]
    anew = np.sort(TAILS[tail](np.random.default_rng(1000), 4_000_000))
    for stated in (1e-3, 1e-4):
        levels = [exceeded(values, stated) for values in drawn]
        true = 1 - np.searchsorted(anew, levels) / len(anew)
        assert true.mean() <= 1.1 * stated
        assert chance_above(drawn[0], levels[0]) <= 1.01 * stated


def test_few_values_say_nothing_of_a_tail():
    assert exceeded(np.zeros(20), 0.1) == np.inf
    assert chance_above(np.zeros(20), 5.0) == 1


def test_heights_of_a_person_s_slices_are_in_order_and_evenly_spaced():
    """Two parts of one person lie as far apart as slices are missing: that, and no more, the claims rest on."""
    pixels, people = phantoms(24, 32)
    steps = np.diff(heights(residuals(directions(pixels)), people).reshape(24, 32)[:, 6:26], axis=1)
    assert (np.sign(steps) == np.sign(np.median(steps))).mean() > 0.98
    assert np.median(np.abs(steps)) == pytest.approx(1, abs=0.3)


def test_where_nobody_has_slices_side_by_side_no_distance_is_known(drawn):
    pixels, people = without_middle(drawn, 7)
    half = np.arange(len(people)) % 8 >= 4
    line = heights(residuals(directions(pixels)), people * 2 + half)
    assert np.abs(line[half][:, None] - line[~half]).min() > 8


def test_gaps_are_least_distances():
    line, groups = np.random.default_rng(0).uniform(0, 9, 40), np.arange(40) % 7
    found = gaps(line, groups)
    for g in range(7):
        for h in range(g + 1, 7):
            least = np.abs(line[groups == g][:, None] - line[groups == h]).min()
            assert found[g, h] == pytest.approx(least, abs=1e-5)
    assert not np.tril(found).any()


FEWEST_GROUPS = {
    "whole file": 160,
    "99% at random": 150,
    "95% at random": 140,
    "90% at random": 120,
    "80% at random": 100,
}


@pytest.mark.slow
@real
@pytest.mark.timeout(14400)
@pytest.mark.parametrize("name", REAL | PART)
def test_nobody_is_torn_of_real_people(name):
    row = measured(*(REAL | PART)[name]())
    sys.stderr.write(f"{row.line(name)}\n")
    assert not row.wrong
    if (fewest := FEWEST_GROUPS.get(name.partition(",")[0])) is not None:
        assert row.verdict != "unknown"
        assert row.groups >= fewest
    assert name != "whole file" or row.verdict == "patients"


@pytest.mark.slow
@pytest.mark.timeout(14400)
@pytest.mark.parametrize("name", PHANTOM)
def test_nobody_is_torn_of_phantoms(name):
    row = measured(*PHANTOM[name]())
    sys.stderr.write(f"{row.line(name)}\n")
    assert not row.wrong


@pytest.mark.slow
def test_ten_copies_of_every_slice_tear_nobody():
    assert not measured(*with_copies(phantoms(24, 32), 10)).wrong


def changed(one: np.ndarray) -> list[np.ndarray]:
    image = Image.fromarray(one)
    return [
        np.asarray(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        np.asarray(image.rotate(15, Image.Resampling.BILINEAR)),
        np.roll(one, (5, -5), (0, 1)),
        np.asarray(image.resize((48, 48), Image.Resampling.BILINEAR).crop((-8, -8, 56, 56))),
    ]


def test_a_copy_is_laid_onto_its_original(drawn):
    one = drawn[0][8]
    shown = np.array([one, *changed(one), drawn[0][24]])
    laid = Alignment(shown).registered(np.zeros(5, np.int64), np.arange(1, 6))
    alike = directions(laid) @ directions(one[None])[0]
    assert (alike[:4] > 0.97).all()
    assert alike[4] < 0.96


def test_copies_are_linked_to_slices_of_their_person(drawn):
    rng = np.random.default_rng(0)
    copies = np.array([augmented(one, rng) for one in drawn[0][::8]])
    pixels, people = np.concatenate([drawn[0], copies]), np.concatenate([drawn[1], drawn[1][::8]])
    slices = residuals(directions(pixels))
    groups = np.r_[drawn[1], 12 + np.arange(len(copies))]
    copy, shown, _ = copy_links(pixels, slices, groups)
    own = (copy >= len(drawn[1])) & (people[copy] == people[shown])  # a link to somebody else joins, and tears nobody
    assert len(np.unique(copy[own])) >= 0.8 * len(copies)


@pytest.mark.parametrize("side", [32, 64])
def test_no_people_among_textures(side):
    noise = np.random.default_rng(0).integers(0, 256, (150, side, side)).astype(np.uint8)
    found = identify_patients(noise)
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
    found = identify_patients(np.array([thumbnail(image) for image in photographs()]))
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
    assert not identify_patients(np.array(pieces)).found


MANY = """
import sys, time
from pathlib import Path
import numpy as np
from sklearn.metrics import adjusted_rand_score
from stageproof.train.data.patients.from_pixels import identify_patients
shown, people = (np.load(sys.argv[1])[name] for name in ("shown", "people"))
began = time.monotonic()
found = identify_patients(shown)
peak = next(int(line.split()[1]) << 10 for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))
print(found.found, adjusted_rand_score(people, found.groups), peak, time.monotonic() - began)
"""


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_forty_thousand_slices_in_bounded_memory(tmp_path):
    """In less than 2 GiB, in a process of its own. The time is printed, since it depends on who else works here."""
    shown, people = phantoms(1250, 32)
    np.savez(tmp_path / "many.npz", shown=[thumbnail(Image.fromarray(one)) for one in shown], people=people)
    done = subprocess.run([sys.executable, "-c", MANY, tmp_path / "many.npz"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    identified, index, peak, seconds = done.stdout.split()
    sys.stderr.write(f"{float(seconds):.0f} s, {int(peak) / 2**30:.2f} GiB\n")
    assert identified == "True"
    assert float(index) >= 0.95
    assert int(peak) < 2 << 30


class Scores:
    """Scores of pairs of groups as a table gives them, by the first slice of each; all others are far below."""

    def __init__(self, table: dict[tuple[int, int], float]) -> None:
        self.table = table

    def of(self, pairs: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        return np.array([self.table.get((min(a[0], b[0]), max(a[0], b[0])), -9.0) for a, b in pairs])


def test_a_fragment_that_two_people_may_have_joins_neither_at_first():
    """A union of all three would have slices at each height, and no room for the other parts of either."""
    line = np.r_[0:4, 6:16, 6:16].astype(float)
    groups = np.repeat([0, 1, 2], [4, 10, 10])
    found, often, rivals = join_fragments(Scores({(0, 4): 9.0, (0, 14): 8.0}), line, groups, 1.0, 6.0)
    assert often == 0
    assert np.array_equal(found, groups)
    assert sorted(map(sorted, rivals.tolist())) == [[0, 1], [0, 2]]
    found, often, rivals = join_fragments(Scores({(0, 4): 9.0, (0, 14): 2.0}), line, groups, 1.0, 6.0)
    assert often == 1
    assert np.array_equal(found[:4], found[[4] * 4])
    assert len(rivals) == 0


def heads_with_links(links: list[tuple[int, int]], count: int = 8) -> Residuals:
    """Two heads whose slices correlate 0.7 with the next one, and as many links of 0.4 between them as are given."""
    place = np.arange(count)
    own = 0.7 ** np.abs(place[:, None] - place)
    across = np.zeros((count, count))
    for one, other in links:
        across[one, other] = 0.4
    values, vectors = np.linalg.eigh(np.block([[own, across], [across.T, own]]))
    left = (vectors * np.sqrt(np.clip(values, 0, None))).astype(np.float32)
    left /= np.linalg.norm(left, axis=1, keepdims=True)
    return Residuals(left, 0 * left, left, np.zeros((len(left), 1), np.int32), np.ones(len(left)), 0.0, 0.05)


def test_two_heads_that_one_link_holds_teach_nothing_and_stay_together():
    line, together = np.tile(np.arange(8.0), 2), np.zeros(16, np.int64)
    fragments, joined, held = cut_bridges(heads_with_links([(3, 3)]), line, together, together, 0.2)
    assert len(np.unique(fragments[:8])) == len(np.unique(fragments[8:])) == 1
    assert fragments[0] != fragments[8]
    assert joined[0] != joined[8]
    assert len(held) == 1
    assert {one < 8 for one in held[0].tolist()} == {True, False}
    fragments, _, held = cut_bridges(heads_with_links([(3, 3), (6, 6)]), line, together, together, 0.2)
    assert len(np.unique(fragments)) == 1
    assert len(held) == 0


def test_of_many_heads_that_one_link_holds_none_is_cut():
    """They may be heads that were scanned twice."""
    one = heads_with_links([(3, 3)])
    left = np.kron(np.eye(2, dtype=np.float32), one.left)
    slices = Residuals(left, 0 * left, left, np.zeros((32, 1), np.int32), np.ones(32), 0.0, 0.05)
    pairs = np.repeat([0, 1], 16)
    assert len(cut_bridges(slices, np.tile(np.arange(8.0), 4), pairs, pairs, 0.2)[2]) == 0
