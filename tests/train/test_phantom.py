"""Phantom slices: the same every time, measurably declining with the stage, and written to disk whole or not at all."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import LABELS, label_set
from stageproof.train.data.phantom import anatomy
from stageproof.train.data.phantom.__main__ import draw_slice, main, phantom_samples
from stageproof.train.data.phantom.anatomy import brain, invent
from stageproof.train.data.phantom.slices import stage_of
from stageproof.train.data.sources.source import load_samples

REPOSITORY = Path(__file__).parents[2]


def fluid_share(pixels: np.ndarray) -> float:
    """Share of the brain that is darker than cortex: between the outermost bright pixels of each row, below 70."""
    bright = pixels > 90
    brain_mask = np.maximum.accumulate(bright, 1) & np.maximum.accumulate(bright[:, ::-1], 1)[:, ::-1]
    return float((pixels[brain_mask] < 70).mean())


def decode(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "L"
        return np.asarray(image)


@pytest.fixture(scope="module")
def samples():
    return phantom_samples(3, 4, size=64)


def test_a_slice_is_8_bit_grey_on_black_with_a_centred_brain():
    pixels = draw_slice(1, 5, 0.6)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (128, 128)
    assert pixels.max() > 180
    border = np.concatenate([pixels[:4].ravel(), pixels[-4:].ravel(), pixels[:, :4].ravel(), pixels[:, -4:].ravel()])
    assert not border.any()
    assert 0.35 < (pixels > 0).mean() < 0.65
    rows, columns = np.nonzero(pixels)
    assert abs(rows.mean() - 63.5) < 8
    assert abs(columns.mean() - 63.5) < 8


def test_the_same_arguments_give_the_same_pixels_in_another_process():
    script = (
        "import hashlib; from train.data.phantom import draw_slice; "
        "print(hashlib.sha256(draw_slice(2, 7, 0.3, seed=4).tobytes()).hexdigest())"
    )
    other = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == hashlib.sha256(draw_slice(2, 7, 0.3, seed=4).tobytes()).hexdigest()


def test_drawing_neither_reads_nor_moves_the_global_generator():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = draw_slice(0, 0, 0.5)
    assert np.array_equal(np.random.get_state()[1], before)
    np.random.seed(1)
    assert np.array_equal(draw_slice(0, 0, 0.5), first)


@pytest.mark.parametrize("change", [{"stage": 2}, {"patient": 6}, {"level": 0.62}, {"seed": 1}])
def test_every_argument_changes_the_picture(change):
    plain = {"stage": 1, "patient": 5, "level": 0.6, "seed": 0}
    first, second = draw_slice(**plain), draw_slice(**(plain | change))
    assert (first != second).mean() > 0.2


def test_another_seed_holds_other_people_and_other_patients_are_other_people():
    folds = [invent(seed, patient).folds for seed, patient in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for index, one in enumerate(folds):
        assert not any(np.array_equal(one, other) for other in folds[index + 1 :])


@pytest.mark.parametrize("size", [32, 65, 96, 224])
def test_the_head_keeps_its_place_at_every_size(size):
    pixels = draw_slice(1, 5, 0.6, size=size)
    assert pixels.shape == (size, size)
    expected = (np.argwhere(draw_slice(1, 5, 0.6) > 0).mean(0) + 0.5) / 128  # pixel centres
    assert np.abs((np.argwhere(pixels > 0).mean(0) + 0.5) / size - expected).max() < 0.005


@pytest.mark.parametrize("level", [0.08, 0.35, 0.65, 0.92])
def test_fluid_in_the_brain_rises_with_every_stage_at_every_level(level):
    shares = [np.mean([fluid_share(draw_slice(stage, p, level, seed=3)) for p in range(8)]) for stage in range(4)]
    assert np.all(np.diff(shares) > 0.015), shares


def test_the_ventricles_alone_widen_with_the_stage():
    centre = np.s_[40:88, 40:88]  # no sulcus reaches here at this level
    dark = [np.mean([(draw_slice(s, p, 0.7)[centre] < 70).mean() for p in range(8)]) for s in range(4)]
    assert np.all(np.diff(dark) > 0.03), dark


def test_the_hippocampi_shrink_with_the_stage():
    def grey(stage: int, patient: int) -> float:
        signal, _ = brain(invent(0, patient), stage, 0.02, 128)  # noise-free
        beside_the_midbrain = signal[58:86, 26:102]
        return float(((beside_the_midbrain > 0.4) & (beside_the_midbrain < 0.65)).sum())

    means = [np.mean([grey(stage, patient) for patient in range(12)]) for stage in range(4)]
    assert np.all(np.diff(means) < 0), means


def test_samples_carry_labels_names_and_patients(samples):
    assert len(samples) == 4 * 3 * 4
    assert samples.source == "phantom(patients=3, slices=4, size=64, seed=0)"
    assert samples.labels.dtype == np.int64
    assert np.bincount(samples.labels).tolist() == [12, 12, 12, 12]
    assert samples.groups is not None
    assert samples.groups.dtype == np.int64
    patients, counts = np.unique(samples.groups, return_counts=True)
    assert len(patients) == 12
    assert set(counts) == {4}
    assert all(len(set(samples.labels[samples.groups == patient])) == 1 for patient in patients)
    assert len(set(samples.names)) == len(samples)
    for name, label, patient in zip(samples.names, samples.labels, samples.groups, strict=True):
        assert name.startswith(f"phantom-0/{LABELS[label]}/p{patient:03d}_s")
    assert all(decode(image).shape == (64, 64) for image in samples.images)


def test_samples_are_the_same_every_time_and_no_image_is_repeated(samples):
    assert phantom_samples(3, 4, size=64).digest() == samples.digest()
    other = phantom_samples(3, 4, size=64, seed=1)
    assert len({decode(image).tobytes() for image in [*samples.images, *other.images]}) == 2 * len(samples)


def test_asking_for_more_people_leaves_the_others_as_they_are(samples):
    more = dict(zip((bigger := phantom_samples(4, 4, size=64)).names, bigger.images, strict=True))
    assert all(more[name] == image for name, image in zip(samples.names, samples.images, strict=True))


def test_a_patients_own_slices_resemble_one_another_more_than_another_persons():
    # Neighbouring levels, all of one stage: what is shared is the person.
    pixels = np.stack([draw_slice(1, p, level, size=64) for p in range(8) for level in (0.48, 0.52)]).reshape(16, -1)
    likeness = np.corrcoef(pixels)
    same = np.array([likeness[2 * p, 2 * p + 1] for p in range(8)])
    different = likeness[np.arange(16)[:, None] // 2 != np.arange(16) // 2]
    assert same.mean() > different.mean() + 0.05
    assert same.min() > np.percentile(different, 95)


@pytest.mark.slow  # tests/train/test_audit.py counts the same people
def test_people_can_be_told_from_the_pixels_at_the_spacing_that_the_command_writes():
    pytest.importorskip("scipy", reason="linking slices by pixels needs scipy")
    from stageproof.train.data.patients.from_pixels import identify_patients
    from stageproof.train.data.patients.thumbnails import thumbnail

    samples = phantom_samples(6, 32, size=64, seed=1)
    thumbnails = np.stack([thumbnail(Image.fromarray(decode(image))) for image in samples.images])
    linked = identify_patients(thumbnails).groups
    assert np.array_equal(linked[:, None] == linked, samples.groups[:, None] == samples.groups)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": 4}, r"stage is 4; expected 0-3"),
        ({"stage": -1}, r"stage is -1"),
        ({"level": 1.5}, r"level is 1\.5; expected 0"),
        ({"level": float("nan")}, r"level is nan"),
        ({"size": 16}, r"size is 16; a phantom slice needs 32"),
        ({"patient": -1}, r"patient is -1; expected 0 or more"),
        ({"seed": -3}, r"seed is -3; expected 0 or more"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        draw_slice(**({"stage": 0, "patient": 0, "level": 0.5} | arguments))


@pytest.mark.parametrize("arguments", [{"patients": 0}, {"slices": 0}])
def test_an_empty_population_is_refused(arguments):
    with pytest.raises(InputError, match=r"needs 1 or more"):
        phantom_samples(**arguments)


@pytest.mark.parametrize(("kind", "name"), [("png", "PNG"), ("jpeg", "JPEG")])
def test_the_command_writes_class_folders(tmp_path, kind, name):
    out = tmp_path / "new" / "phantoms"
    assert main(["--out", str(out), "--patients", "1", "--slices", "2", "--size", "32", "--format", kind]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(LABELS)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert files == sorted(f"{label}/p{i:03d}_s{s}.{kind}" for i, label in enumerate(LABELS) for s in range(2))
    with Image.open(out / "MildDemented" / f"p002_s0.{kind}") as image:
        assert (image.format, image.mode, image.size) == (name, "L", (32, 32))
        if kind == "png":
            assert np.array_equal(image, draw_slice(2, 2, 0.08, size=32, seed=1))
    assert list(out.parent.iterdir()) == [out]  # nothing half written is left beside it


def test_the_command_fills_an_empty_directory(tmp_path):
    assert main(["--out", str(tmp_path), "--patients", "1", "--slices", "1", "--size", "32"]) == 0
    assert len(list(tmp_path.rglob("*.png"))) == 4


@pytest.mark.parametrize("occupied_by", ["directory", "file"])
def test_the_command_leaves_what_is_there_alone(tmp_path, capsys, occupied_by):
    out = tmp_path / "mine"
    kept = out / "keep.txt" if occupied_by == "directory" else out
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    assert main(["--out", str(out), "--patients", "1", "--slices", "1", "--size", "32"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "is not an empty directory" in message
    assert kept.read_text() == "mine"
    assert list(tmp_path.rglob("*.png")) == []


def test_a_wrong_option_is_one_line_and_leaves_nothing_behind(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "new"), "--size", "8"]) == 2
    assert "size is 8" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_command_draws_a_montage(tmp_path):
    path = tmp_path / "montage.png"
    assert main(["--montage", str(path), "--size", "48"]) == 0
    with Image.open(path) as image:
        assert image.mode == "L"
        assert image.height == 4 * 48
        pixels = np.asarray(image)
    last = pixels[3 * 48 :, -48:]
    assert np.array_equal(last, draw_slice(3, 23, 0.92, size=48, seed=1) & 0xF8)


def test_the_help_says_whose_slices_these_are(helps):
    assert "not in the default training data" in " ".join(helps["train.data.phantom"].text.split())


@pytest.mark.parametrize("stage", range(4))
def test_a_whole_stage_is_the_same_as_a_number_of_any_type(stage):
    expected = draw_slice(stage, 5, 0.4, size=32)
    for same in (float(stage), np.int64(stage), np.float64(stage)):
        assert np.array_equal(draw_slice(same, 5, 0.4, size=32), expected)
    assert stage_of(stage, 4) == stage
    assert type(stage_of(stage, 4)) is int


def test_the_atrophy_of_a_whole_stage_is_that_of_the_table():
    person, table = invent(0, 3), (0.0, 1.05, 2.1, 3.25)
    assert table == anatomy._ATROPHY
    for stage, atrophy in enumerate(table):
        assert np.interp(stage, range(4), table) == atrophy  # to the bit: so are the pixels
    drawn = [brain(person, stage, 0.6, 48)[0].sum() for stage in np.linspace(0, 3, 13)]
    assert drawn == sorted(drawn, reverse=True)


@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_phantoms_of_any_label_set(count):
    classes = label_set([f"grade {chr(97 + at)}" for at in range(count)])
    made = phantom_samples(2, 1, size=32, classes=classes)
    assert made.classes == classes
    assert made.labels.tolist() == [label for label in range(count) for _ in range(2)]
    assert len(set(made.groups.tolist())) == 2 * count
    assert made.names[-1] == f"phantom-0/{classes.names[-1]}/p{2 * count - 1:03d}_s0.png"
    assert made.source.endswith(f", classes={','.join(classes.names)})")
    last = draw_slice(3, 2 * count - 1, 0.5, size=32)
    assert np.array_equal(decode(made.read(len(made) - 1)), last)
    middle = draw_slice(3 / (count - 1), 1, 0.5, size=32)
    assert np.array_equal(decode(made.read(2)), middle)


def test_the_four_stages_are_as_before_label_sets():
    assert phantom_samples(1, 1, size=32).source == "phantom(patients=1, slices=1, size=32, seed=0)"
    assert phantom_samples(1, 1, size=32).names[0] == "phantom-0/NonDemented/p000_s0.png"


def test_the_command_takes_classes(tmp_path, capsys):
    options = ["--patients", "1", "--slices", "1", "--size", "32"]
    assert main(["--out", str(tmp_path / "a"), "--classes", "cn-mci-ad", *options]) == 0
    assert load_samples(tmp_path / "a").classes.names == ("CN", "MCI", "AD")
    assert main(["--out", str(tmp_path / "b"), "--classes", "AD,CN", *options]) == 2
    assert "expected them in clinical order, CN, AD" in capsys.readouterr().err
    assert main(["--montage", str(tmp_path / "c.png"), "--classes", "well,ill", "--size", "32"]) == 0
    with Image.open(tmp_path / "c.png") as image:
        assert image.height == 2 * 32
