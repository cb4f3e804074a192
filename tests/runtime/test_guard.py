"""The guard lets the slices of new patients through and turns away what is no such slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime import BundleError, InputError, read_image
from stageproof.runtime.guard.ood_guard import Guard, fit
from tests.runtime.negatives import array, chest, library_images, negatives


@pytest.fixture(scope="session")
def phantom_guard():
    """Fitted on 12 phantom people of each stage."""
    from stageproof.train.data.phantom.__main__ import phantom_samples

    samples = phantom_samples(patients=12, slices=6, size=96, seed=21)
    return fit([read_image(image) for image in samples.images], samples.groups)


@pytest.fixture(scope="session")
def strangers() -> list[Image.Image]:
    """Phantom slices of people that the guard has never seen."""
    from stageproof.train.data.phantom.__main__ import phantom_samples

    return [read_image(image) for image in phantom_samples(patients=6, slices=6, size=96, seed=22).images]


@pytest.fixture(scope="session")
def real_sides(real_data: Path):
    """(guard fitted on every third slice of 100 real patients, all slices of 40 others)."""
    import pyarrow.parquet as pq

    rows = pq.read_table(real_data).column("image").to_pylist()
    images = [read_image(row["bytes"]) for row in rows]
    patients = link([image.resize((32, 32), Image.Resampling.BOX) for image in images])
    order = np.random.default_rng(4).permutation(np.unique(patients))
    assert len(order) == 160  # of 32 slices each, as the dataset's card says
    known = np.flatnonzero(np.isin(patients, order[:100]))[::3]
    unknown = np.flatnonzero(np.isin(patients, order[-40:]))
    return fit([images[index] for index in known], patients[known]), [images[index] for index in unknown]


def link(thumbnails: list[Image.Image]) -> np.ndarray:
    """(N,) patient numbers: slices joined by a chain of thumbnails that correlate above 0.98."""
    rows = np.stack([np.asarray(thumbnail, np.float32).ravel() for thumbnail in thumbnails])
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    patients = np.full(len(rows), -1)
    for first in range(len(rows)):
        frontier = np.array([first]) if patients[first] < 0 else np.array([], int)
        while len(frontier):
            patients[frontier] = first
            frontier = np.flatnonzero(((rows[frontier] @ rows.T > 0.98).any(axis=0)) & (patients < 0))
    return patients


def rejected(guard: Guard, images: list[Image.Image]) -> float:
    return float(np.mean([guard.judge(guard.scores(image)) is not None for image in images]))


def test_new_phantom_people_pass(phantom_guard: Guard, strangers: list[Image.Image]) -> None:
    assert phantom_guard.fitted["images"] == 288
    assert phantom_guard.fitted["groups"] == 48
    assert phantom_guard.fitted["rejected"] <= 0.02
    assert rejected(phantom_guard, strangers) <= 0.02


def test_everything_else_is_turned_away(phantom_guard: Guard, strangers: list[Image.Image]) -> None:
    shares = {kind: rejected(phantom_guard, images) for kind, images in negatives(strangers).items()}
    assert {kind: share for kind, share in shares.items() if share < 0.98} == {}


def test_photographs_are_turned_away(phantom_guard: Guard) -> None:
    photographs = library_images()
    assert len(photographs) > 40
    assert rejected(phantom_guard, photographs) >= 0.98


@pytest.mark.slow
def test_new_real_patients_pass_and_everything_else_does_not(real_sides) -> None:
    """As the phantoms above, of which there are fewer: half a minute."""
    guard, others = real_sides
    assert rejected(guard, others) <= 0.02
    shares = {kind: rejected(guard, images) for kind, images in negatives(others).items()}
    assert {kind: share for kind, share in shares.items() if share < 0.98} == {}
    assert rejected(guard, library_images()) >= 0.98


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("blank", lambda pixels: pixels * 0),
        ("colour", lambda pixels: np.stack([pixels, pixels * 0.7, pixels * 0.7], -1)),
        ("orientation", lambda pixels: pixels[::-1]),
        ("orientation", lambda pixels: np.rot90(pixels)),
        ("border", lambda pixels: 255 - pixels),
        ("smooth", lambda pixels: (pixels > 20) * 180.0),
        ("residual", lambda pixels: pixels * (np.hypot(*(np.mgrid[:96, :96] - 47.5)) > 14)),
    ],
)
def test_the_reason_is_the_most_specific(phantom_guard: Guard, strangers, code: str, change) -> None:
    for image in strangers[::24]:
        scores = phantom_guard.scores(array(change(np.asarray(image, np.float32))))
        judged = phantom_guard.judge(scores)
        assert judged is not None
        assert judged[0] == code
        assert f"({code} " in judged[1]
        assert "at most" in judged[1]


def test_brightness_and_size_do_not_matter(phantom_guard: Guard, strangers: list[Image.Image]) -> None:
    dimmed = [array(np.asarray(image, np.float32) * 0.6) for image in strangers]
    large = [image.resize((300, 300), Image.Resampling.BICUBIC) for image in strangers]
    colour = [image.convert("RGB") for image in strangers]
    for images in (dimmed, large, colour):
        assert rejected(phantom_guard, images) <= 0.02


def test_left_and_right_may_be_stored_either_way(phantom_guard: Guard, strangers: list[Image.Image]) -> None:
    for image in strangers[:40]:
        mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        assert phantom_guard.scores(mirrored) == pytest.approx(phantom_guard.scores(image), rel=1e-3, abs=1e-4)


def test_scores_are_plain_and_repeatable(phantom_guard: Guard, strangers: list[Image.Image]) -> None:
    scores = phantom_guard.scores(strangers[0])
    assert list(scores) == ["blank", "colour", "border", "smooth", "residual", "distance", "orientation"]
    assert all(type(value) is float for value in scores.values())
    assert phantom_guard.scores(strangers[0]) == scores


@pytest.mark.parametrize("count", [1, 7, 16, 17, 40])
def test_together_they_score_to_the_bit_as_alone(phantom_guard: Guard, strangers, count: int) -> None:
    """What stands beside an image has no part in whether it is rejected."""
    images = [*library_images()[:3], chest(), *strangers][:count]
    together = phantom_guard.scores_of([phantom_guard.thumbnail(image) for image in images])
    assert together == [phantom_guard.scores(image) for image in images]


def test_a_score_that_is_no_number_is_rejected(phantom_guard: Guard, strangers: list[Image.Image]) -> None:
    scores = phantom_guard.scores(strangers[0])
    assert phantom_guard.judge(scores) is None
    assert phantom_guard.judge({**scores, "distance": float("nan")}) is not None


def test_round_trip_through_a_file(phantom_guard: Guard, strangers, tmp_path: Path) -> None:
    path = tmp_path / "guard.npz"
    phantom_guard.write(path)
    again = Guard.read(path)
    assert again.thresholds == phantom_guard.thresholds
    assert again.fitted == phantom_guard.fitted
    assert [again.scores(image) for image in strangers[:5]] == [phantom_guard.scores(image) for image in strangers[:5]]
    assert path.stat().st_size < 300_000
    phantom_guard.write(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", None, "shape", "format", "threshold", "nan"])
def test_other_files_are_refused(phantom_guard: Guard, tmp_path: Path, damage) -> None:
    path = tmp_path / "guard.npz"
    phantom_guard.write(path)
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    elif damage is None:
        path.write_bytes(path.read_bytes()[:5000])
    else:
        with np.load(path) as file:
            content = {name: file[name] for name in file.files}
        if damage == "shape":
            content["mean"] = content["mean"][:-1]
        elif damage == "nan":
            content["mean"] = content["mean"] * np.nan
        elif damage == "format":
            content["about"] = np.array(str(content["about"]).replace('"format": 1', '"format": 2'))
        else:
            content["about"] = np.array(str(content["about"]).replace('"border"', '"boarder"'))
        np.savez(path, **content)
    with pytest.raises(BundleError, match=r"guard\.npz is not a guard file of this runtime .*Export again"):
        Guard.read(path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "guard.npz", about=np.array([{"format": 1}], dtype=object))
    with pytest.raises(BundleError, match="is not a guard file of this runtime"):
        Guard.read(tmp_path / "guard.npz")


def test_too_little_to_fit(strangers: list[Image.Image]) -> None:
    with pytest.raises(InputError, match="images has 15 slices; fitting a guard requires at least 16"):
        fit(strangers[:15])
    with pytest.raises(InputError, match="at least two patients"):
        fit(strangers[:20], [7] * 20)
    with pytest.raises(InputError, match="groups has 3 entries"):
        fit(strangers[:20], [1, 2, 3])
    assert fit(strangers[:20]).fitted["groups"] == 20
