"""The guard lets the slices of new patients through and turns away what is no such slice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from runtime import BundleError, ImageError, InputError, Predictor, read_image
from runtime.guard import Guard, fit
from runtime.reading import read

RNG = np.random.default_rng(17)


@pytest.fixture(scope="session")
def phantom_guard():
    """Fitted on 12 phantom people of each stage."""
    from train.data.phantom import phantom_samples

    samples = phantom_samples(patients=12, slices=6, size=96, seed=21)
    return fit([read_image(image) for image in samples.images], samples.groups)


@pytest.fixture(scope="session")
def strangers() -> list[Image.Image]:
    """Phantom slices of people that the guard has never seen."""
    from train.data.phantom import phantom_samples

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


def array(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def text() -> Image.Image:
    page = Image.new("L", (200, 260), 255)
    pen = ImageDraw.Draw(page)
    for line in range(18):
        pen.text((10, 8 + 13 * line), "".join(RNG.choice(list("abcdefgh ijkl mno prstu"), 30)), fill=0)
    return page


def chest() -> Image.Image:
    """Two dark lungs in a bright body that fills the frame, as on a radiograph."""
    picture = Image.new("L", (128, 128), 190)
    pen = ImageDraw.Draw(picture)
    shift = int(RNG.integers(-4, 5))
    pen.ellipse((14 + shift, 22, 58, 108), fill=45)
    pen.ellipse((70, 22, 114 + shift, 108), fill=45)
    for rib in range(7):
        pen.arc((10, 18 + 12 * rib, 118, 60 + 12 * rib), 200, 340, fill=130, width=3)
    return array(np.asarray(picture) + RNG.normal(0, 6, (128, 128)))


def with_skull(image: Image.Image, skull: int, marrow: int) -> Image.Image:
    """The slice drawn smaller inside a bright ring, as before skull stripping; bright as bone, as on CT."""
    small = np.asarray(image.resize((100, 100)))
    rows, columns = np.nonzero(small > 10)
    box = [columns.min() + 14, rows.min() + 14, columns.max() + 14, rows.max() + 14]
    head = Image.new("L", (128, 128))
    pen = ImageDraw.Draw(head)
    pen.ellipse((box[0] - 11, box[1] - 11, box[2] + 11, box[3] + 11), fill=marrow)
    pen.ellipse((box[0] - 8, box[1] - 8, box[2] + 8, box[3] + 8), fill=skull)
    pen.ellipse((box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3), fill=20)
    pixels = np.array(head)
    inside = pixels[14:114, 14:114]
    inside[small > 10] = small[small > 10]
    return Image.fromarray(pixels)


def negatives(slices: list[Image.Image]) -> dict[str, list[Image.Image]]:
    """What the model must not speak of, by kind."""
    some = slices[:: max(1, len(slices) // 60)]
    flipped = [Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180]
    return {
        "black": [Image.new("L", (128, 128), value) for value in (0, 1, 5)],
        "white": [Image.new("L", (128, 128), value) for value in (255, 128)] + [Image.new("RGB", (90, 64), "white")],
        "noise": [array(RNG.integers(0, 256, (128, 128))) for _ in range(40)],
        "coarse noise": [array(np.kron(RNG.integers(0, 256, (8, 8)), np.ones((16, 16)))) for _ in range(40)],
        "coloured noise": [array(RNG.integers(0, 256, (64, 64, 3))) for _ in range(20)],
        "text": [text() for _ in range(20)],
        "white on black text": [array(255 - np.asarray(text())) for _ in range(20)],
        "chest": [chest() for _ in range(20)],
        "gradient": [array(np.add.outer(np.arange(128) * a, np.arange(128) * b)) for a in (0, 1, 2) for b in (0.5, 2)],
        "discs": [array((np.hypot(*(np.mgrid[:128, :128] - 64.0)) < r) * 200.0) for r in range(10, 64, 6)],
        "turned": [image.transpose(way) for image in some for way in flipped],
        "inverted": [array(255 - np.asarray(image, np.int16)) for image in some],
        "skull on MR": [with_skull(image, 30, 220) for image in some],
        "CT": [with_skull(image, 250, 90) for image in some],
        "cropped": [
            image.crop([int(side * part) for side, part in zip(image.size * 2, (0.2, 0.2, 0.8, 0.8), strict=True)])
            for image in some
        ],
    }


def library_images() -> list[Image.Image]:
    """The test photographs of scikit-image and scikit-learn, and what pydicom ships of other modalities than MR."""
    found = []
    for name, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        module = pytest.importorskip(name, reason="its test images are the photographs")
        for path in sorted((Path(module.__file__).parent / folder).iterdir()):
            if path.suffix in (".png", ".jpg"):
                found.append(read_image(path))
    pydicom = pytest.importorskip("pydicom", reason="its test images are the CT and the ultrasound")
    for path in sorted((Path(pydicom.__file__).parent / "data" / "test_files").glob("*.dcm")):
        try:
            picture = read(path)
        except ImageError:  # no image, several frames, or a codec that is not read
            continue
        if any("the modality" in warning for warning in picture.warnings):
            found.append(picture.image)
    return found


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


def test_new_real_patients_pass_and_everything_else_does_not(real_sides) -> None:
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
    with pytest.raises(BundleError, match=r"guard\.npz is not a guard this runtime reads .*Export again"):
        Guard.read(path)


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "guard.npz", about=np.array([{"format": 1}], dtype=object))
    with pytest.raises(BundleError, match="is not a guard this runtime reads"):
        Guard.read(tmp_path / "guard.npz")


def test_too_little_to_fit(strangers: list[Image.Image]) -> None:
    with pytest.raises(InputError, match="images holds 15 slices; a guard needs at least 16"):
        fit(strangers[:15])
    with pytest.raises(InputError, match="at least two patients"):
        fit(strangers[:20], [7] * 20)
    with pytest.raises(InputError, match="groups has 3 entries"):
        fit(strangers[:20], [1, 2, 3])
    assert fit(strangers[:20]).fitted["groups"] == 20


# In the Predictor.


def test_a_guarded_predictor_gives_no_stage_to_a_stranger(guarded: Predictor, phantoms) -> None:
    assert guarded.guarded
    slices = guarded.predict_batch(phantoms.images)
    assert np.mean([prediction.status == "ok" for prediction in slices]) > 0.95
    assert set(slices[0].guard) == set(guarded._guard.thresholds)
    for image in (text(), Image.new("L", (64, 64)), read_image(phantoms.images[0]).transpose(1)):
        prediction = guarded.predict(image)
        assert prediction.status == "rejected"
        assert (prediction.label, prediction.probability, dict(prediction.probabilities)) == (None, None, {})
        assert prediction.code in prediction.guard
        assert prediction.timings.inference_ms == 0.0


def test_rejected_slices_do_not_shift_their_neighbours(guarded: Predictor, phantoms) -> None:
    good = [image for image in phantoms.images[:20] if guarded.predict(image).status == "ok"][:6]
    mixed = [text(), good[0], good[1], Image.new("L", (9, 9)), b"", *good[2:], chest()]
    results = guarded.predict_batch(mixed, batch_size=3)
    assert [result.status for result in results] == [
        *("rejected", "ok", "ok", "rejected", "rejected", "ok", "ok", "ok", "ok", "rejected")
    ]
    answered = [result for result in results if result.status == "ok"]
    for result, image in zip(answered, good, strict=True):
        assert result.probabilities == pytest.approx(dict(guarded.predict(image).probabilities), abs=1e-5)


def test_the_guard_can_be_turned_off_for_measuring(guarded_bundle: Path) -> None:
    predictor = Predictor(guarded_bundle, backend="onnx", guard=False)
    assert not predictor.guarded
    assert predictor.predict(Image.new("L", (64, 64))).status == "ok"
