"""The pixels check ids: twins are joined, two heads under one id are reported, and what names no heads is not used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.labels import LABELS
from stageproof.train.audit.__main__ import main as audit
from stageproof.train.data.dataset import prepare
from stageproof.train.data.identity.id_check import check_ids
from stageproof.train.data.identity.identify import identify
from stageproof.train.data.ids import Ids, numbered
from stageproof.train.data.leak_bound import leak_bound
from stageproof.train.data.phantom.__main__ import draw_slice

PEOPLE, SLICES = 16, 12


@pytest.fixture(scope="module")
def heads() -> np.ndarray:
    """(16, 12, 64, 64) uint8: phantom people of four stages, slices from bottom to top."""
    levels = np.linspace(0.1, 0.9, SLICES)
    return np.array([[draw_slice(p % 4, p, level, size=64, seed=5) for level in levels] for p in range(PEOPLE)])


def checked(heads: np.ndarray, ids: np.ndarray, positions: np.ndarray | None = None):
    subjects = numbered(ids.ravel().tolist())
    return check_ids(heads.reshape(-1, 64, 64), Ids("names", "names", subjects, positions=positions))


def numbers(heads: np.ndarray) -> np.ndarray:
    return np.tile(np.arange(heads.shape[1]), len(heads))


def test_true_ids_are_left_as_they_are(heads):
    ids = np.repeat(np.arange(PEOPLE), SLICES)
    found = checked(heads, ids, numbers(heads))
    assert found.contradicted() is None
    assert np.array_equal(found.groups, ids)
    assert (found.joined, found.twins, found.doubled, found.two_heads) == (0, 0, 0, ())
    assert found.own_nearest > 0.9
    assert found.ordered is not None
    assert found.ordered > 0.9


def test_people_torn_by_their_ids_are_joined(heads):
    people = np.repeat(np.arange(PEOPLE), SLICES)
    torn = np.where((people < 3) & (numbers(heads) % 2 == 1), people + 100, people)
    found = checked(heads, torn)
    assert np.array_equal(found.groups, people)
    assert found.joined == 6
    assert found.doubled > 3


def test_two_heads_under_one_id_are_reported(heads):
    people = np.repeat(np.arange(PEOPLE), SLICES)
    found = checked(heads, np.where(people < 2, 0, people))
    assert len(found.two_heads) <= 1
    for one, other in found.two_heads:
        assert {people[one], people[other]} == {0, 1}
    # A head whose middle is missing is one head all the same.
    kept = np.r_[0:4, 8:12]
    found = checked(heads[:, kept], np.repeat(np.arange(PEOPLE), 8))
    assert found.two_heads == ()


def copies(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    pictures = heads.reshape(-1, 64, 64).astype(float)
    noisy = [np.clip(pictures * rng.uniform(0.9, 1.1, (len(pictures), 1, 1)), 0, 255) for _ in range(3)]
    shown = np.concatenate([pictures, *noisy]).astype(np.uint8)[None]
    return shown, np.tile(np.arange(len(pictures)), 4), np.repeat(np.arange(4), len(pictures))


@pytest.mark.parametrize("what", ["batches", "copies", "chunks", "wrong order"])
def test_names_that_name_no_heads_are_contradicted(heads, what):
    people, number = np.repeat(np.arange(PEOPLE), SLICES), numbers(heads)
    rng = np.random.default_rng(0)
    if what == "batches":
        found = checked(heads, rng.integers(0, 20, len(people)), rng.integers(0, 20, len(people)))
    elif what == "copies":
        found = checked(*copies(heads))
    elif what == "chunks":  # a counter over the whole set, cut into chunks of 9 while a person has 12 slices
        found = checked(heads, np.arange(len(people)) // 9, np.arange(len(people)) % 9)
    else:  # some people torn, and numbers that are no slice numbers
        torn = np.where((people < 3) & (number % 2 == 1), people + 100, people)
        found = checked(heads, torn, rng.permutation(number))
    assert found.contradicted() is not None


def test_numbers_in_any_order_are_no_reason_against_ids_that_are_right(heads):
    shuffled = np.random.default_rng(0).permutation(numbers(heads))
    assert checked(heads, np.repeat(np.arange(PEOPLE), SLICES), shuffled).contradicted() is None


def longitudinal(root: Path) -> tuple[Path, dict[str, int]]:
    """SCAN_SLICE.jpeg in class folders: 24 scans of 18 people, and who each scan is of.

    Six people were scanned twice; a tenth of all slices, saved anew, is in both of a person's scans, and the other
    slices of the second scan lie between those of the first.
    """
    who, scan = {}, 388200
    for person in range(18):
        for visit in range(2 if person < 6 else 1):
            scan += 7
            who[str(scan)] = person
            for at in range(12):
                shared = visit == 1 and at % 4 == 0
                level = 0.1 + (at + (0.0 if visit == 0 or shared else 0.5)) / 15
                picture = Image.fromarray(draw_slice(person % 4, person, level, size=64, seed=7))
                folder = root / LABELS[person % 4]
                folder.mkdir(parents=True, exist_ok=True)
                picture.save(folder / f"{scan}_{70 + at}.jpeg", quality=95 - 10 * visit)
    return root, who


def test_twins_of_a_longitudinal_set_are_joined_and_reported(tmp_path, capsys):
    from stageproof.runtime.preprocess import InputSpec

    data, who = longitudinal(tmp_path / "data")
    told = {"max_unreadable": 0.0, "split": "patient", "fold": 0, "folds": 3, "seed": 0}
    prepared = prepare(data, InputSpec(32, 32, 1, (0.0,), (1.0,)), **told)
    assert (prepared.who.kind, prepared.who.verdict, prepared.leaked) == ("names", "groups", 0.0)
    people = np.array([who[Path(name).stem.split("_")[0]] for name in prepared.slices.names])
    assert np.array_equal(numbered(people.tolist()), numbered(prepared.groups.tolist()))
    assert not set(people[prepared.split.training]) & set(people[prepared.split.validation])
    facts = prepared.facts()
    assert facts["patients"] is None
    assert facts["groups"] == 18
    assert facts["id_check"]["ids"] == 24
    assert facts["id_check"]["joined_ids"] == 12
    assert audit(["--data", str(data), "--out", str(tmp_path / "audit")]) == 0
    said = capsys.readouterr().out
    assert "groups      18 groups from file names" in said
    assert "TWO IDS     12 ids show the same patient as another id" in said
    assert max(map(len, said.partition("\nreport")[0].splitlines())) <= 80
    assert (tmp_path / "audit" / "groups.csv").read_text().splitlines()[0] == "file,group,verdict"
    # What the audit wrote still says that groups are not people.
    again = prepare(data, InputSpec(32, 32, 1, (0.0,), (1.0,)), groups=tmp_path / "audit" / "groups.csv", **told)
    assert again.who.verdict == "groups"
    assert again.facts()["patients"] is None


def test_names_that_are_not_confirmed_are_said_and_not_used(heads):
    people = np.repeat(np.arange(PEOPLE), SLICES)
    wrong = np.random.default_rng(0).permutation(people)
    ids = Ids("names", "ids in file names: 7_3.png is id 7, slice 3", wrong, assumed=True, scans=True)
    found = identify(heads.reshape(-1, 64, 64), None, ids)
    assert found.ids is None
    assert found.kind != "names"
    assert "7_3.png is id 7, slice 3: not used, because the most similar slice has the same id for" in found.notes[0]


def test_a_random_split_leaks_at_least_what_can_be_proved(heads):
    many = np.concatenate(
        [
            heads,
            np.array(
                [[draw_slice(p % 4, p, 0.1 + 0.8 * at / 11, size=64, seed=6) for at in range(12)] for p in range(8)]
            ),
        ]
    )
    labels = np.repeat(np.arange(24) % 4, SLICES)
    bound = leak_bound(many.reshape(-1, 64, 64), labels)
    assert 0.5 < bound.leaked <= 1
    assert bound.leaked <= bound.linked <= 1


def test_no_leak_is_claimed_where_every_slice_is_of_somebody_else():
    """Classes prepared otherwise, as of different sites, must not pass for people."""
    pictures = np.array([draw_slice(p % 4, p, 0.2 + 0.6 * (p * 7 % 11) / 11, size=64, seed=8) for p in range(240)])
    labels = np.arange(240) % 4
    prepared = np.clip(255 * (pictures / 255) ** (0.5 + 0.4 * labels)[:, None, None], 0, 255).astype(np.uint8)
    for shown in (pictures, prepared):
        bound = leak_bound(shown, labels)
        assert bound.leaked < 0.005
        assert bound.linked < 0.005
