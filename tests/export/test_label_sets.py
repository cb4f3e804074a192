"""Exports of models with any label set: classes are matched by name, and reported in the model's order."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from stageproof.export.bundle.card import model_card
from stageproof.export.bundle.existing import with_existing
from stageproof.export.bundle.guard import write_guard
from stageproof.export.data.calibration import calibration_samples
from stageproof.export.data.comparison import comparison, phantoms
from stageproof.export.options import Options
from stageproof.export.parity.reference_answers import gather
from stageproof.export.parity.report import Tolerance, compare
from stageproof.export.preconditions import check_calibrated, check_images
from stageproof.export.quantization.flip_forecast import changes, probability_to_pass
from stageproof.export.reference.order_check import better_order
from stageproof.export.reference.rebuild_options import assert_agrees
from stageproof.export.run import export
from stageproof.runtime import Predictor
from stageproof.runtime.artifacts.metadata import read_metadata
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import CheckpointError, DatasetError, InputError
from stageproof.runtime.labels import FOUR_STAGES, LabelSet, label_set
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.phantom.__main__ import phantom_samples
from stageproof.train.foreign.class_order import ClassOrder
from tests import tiny
from tests.cohort import SEVEN
from tests.export import label_runs
from tests.export.label_runs import GRADES

CN_MCI_AD = label_set(["CN", "MCI", "AD"])
TWENTY = label_set([f"Klasse {index:02d}" for index in range(20)])


def exported(run: Path, out: Path, **options):
    """The export in this process, with the guard of the run's slices."""
    with tiny.known(guard=write_guard):
        return export(Options(source=run, out=out, threads=1, **options))


def check_bundle(out: Path, run: Path, classes: LabelSet) -> None:
    """Bundle, artifacts, report and predictions have the run's classes, each in its own place."""
    order, held = label_runs.order_of(classes), label_runs.held_out(run)
    assert order != classes.names
    manifest = verified(out)
    assert (manifest.model.labels, manifest.model.classes) == (order, classes)
    for artifact in manifest.artifacts:
        found = read_metadata(out / artifact.file, artifact.format)
        assert found is not None
        assert found.model == manifest.model
    predictor = Predictor(out, backend="onnx", threads=1, guard=False)
    found = predictor.predict_batch(list(held))
    assert all(tuple(one.probabilities) == classes.names for one in found)
    right = label_runs.shares([one.label for one in found], list(held.values()))
    assert np.mean(list(right.values())) > 1.5 / len(classes), "a network that is right about its own classes"
    report = json.loads((out / "parity.json").read_text(encoding="utf-8"))
    for check in report["artifacts"]["model.onnx"]["backends"]:
        assert list(check["sensitivity"]["reference"]) == [name for name in order if name in right]
        assert check["sensitivity"]["reference"] == pytest.approx(right)
        assert check["sensitivity"]["artifact"] == pytest.approx(right)
        assert list(check["answers"]) == list(order) == list(report["comparison"]["answers"])
    assert predictor.self_test().passed


def test_a_run_of_three_classes_is_exported_and_answers_by_name(graded_bundle: Path) -> None:
    check_bundle(graded_bundle, graded_bundle.with_name("run"), GRADES)


@pytest.mark.slow
def test_a_run_of_seven_classes_is_exported_in_every_format(tmp_path: Path) -> None:
    seven = label_set(SEVEN, SEVEN[3:])
    data = label_runs.write_folders(tmp_path / "data", seven, people=16, slices=4)
    run = label_runs.write_run(tmp_path / "run", seven, data)
    assert exported(run, tmp_path / "bundle", to=tiny.FORMATS).whole
    check_bundle(tmp_path / "bundle", run, seven)
    assert {one.format for one in verified(tmp_path / "bundle").artifacts} == set(tiny.FORMATS)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [label_set(["CN", "AD"]), TWENTY], ids=["2", "20"])
def test_int8_of_two_and_of_twenty_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: LabelSet) -> None:
    from stageproof.export.data import comparison as compared_on
    from stageproof.export.data import run_data

    for module in (compared_on, run_data):
        monkeypatch.setattr(module, "phantom_samples", partial(phantom_samples, size=32))
    run_data._population.cache_clear()
    run = label_runs.write_run(tmp_path / "run", classes, None, "resnet18", people=24 if len(classes) == 2 else 8)
    settings = {"to": ("onnx",), "precision": ("fp32", "int8"), "parity_images": 240, "flip_tolerance": 0.2}
    found = exported(run, tmp_path / "bundle", **settings)
    run_data._population.cache_clear()
    assert found.comparison["images"] == 240
    assert found.comparison["kind"] == "held-out"
    full, small = found.outcomes
    assert (full.precision, full.status) == ("fp32", "passed")
    assert small.reports, small.reason
    assert small.status == "passed" or small.error == "ParityError", "of a random network, int8 may change more"
    for measured in small.reports:
        assert list(measured["flip_bound_by_class"]) == list(label_runs.order_of(classes))
        assert sum(measured["flipped_by_class"].values()) == measured["flipped"]
        assert set(measured["sensitivity"]["artifact"]) == set(classes.names)


def reference(classes: LabelSet, order: tuple[str, ...]) -> SimpleNamespace:
    """A reference that predicts by the position of the one bright row of an 8 × 8 image."""
    info = ModelInfo("rows", "0" * 64, order, classes, InputSpec(8, 8, 1, (0.0,), (1.0,)))

    def logits(images: np.ndarray) -> np.ndarray:
        bright = images.mean((1, 3)).argmax(1)
        place = [order.index(name) for name in classes.names]
        return np.eye(len(order), dtype=np.float32)[np.array(place)[bright % len(order)]] * 5

    return SimpleNamespace(run=None, info=info, logits=logits)


def write_rows(folder: Path, names: tuple[str, ...], each: int = 10) -> Path:
    """Class folders with images of which row k is bright for class k."""
    from PIL import Image

    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(each):
            pixels = np.full((8, 8), index, np.uint8)
            pixels[label] = 200
            Image.fromarray(pixels).save(folder / name / f"s{label}_{index}.png")
    return folder


@pytest.mark.parametrize("classes", [label_set(["CN", "AD"]), CN_MCI_AD, GRADES, label_set(SEVEN)])
def test_true_classes_are_in_the_models_order(tmp_path: Path, classes: LabelSet) -> None:
    order = label_runs.order_of(classes)
    data = write_rows(tmp_path / "data", classes.names)
    found = gather(Options(parity_data=data), reference(classes, order), ["fp32"])
    assert found.truth is not None
    assert (found.truth == found.logits.argmax(1)).all(), "the reference is right about every image"
    assert found.facts["answers"] == dict.fromkeys(order, 10)


def test_images_of_some_of_the_models_classes_keep_their_names(tmp_path: Path) -> None:
    """AD is class 1 of the two in the data, and class 2 of the model's three."""
    data = write_rows(tmp_path / "data", ("CN", "AD"))
    found = comparison(None, 64, data, classes=CN_MCI_AD)
    assert found.samples.classes == CN_MCI_AD
    names = [CN_MCI_AD.names[label] for label in found.samples.labels]
    assert names == [Path(name).parts[0] for name in found.samples.names]


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (("CN", "MCI", "AD"), label_set(["CN", "AD"]), r"that the model does not have: MCI \(10\)"),
        (
            FOUR_STAGES.names,
            CN_MCI_AD,
            r"does not have: NonDemented \(10\), VeryMildDemented \(10\), .*are CN, MCI, AD",
        ),
        (("Grad 0", "Grad 3"), GRADES, "'Grad 3'.* none of the classes Grad 0, Größe"),
        (("0", "1", "2"), CN_MCI_AD, "numbers without names .*, and nothing states which of the classes"),
        (("0", "1", "2"), GRADES, "numbers without names .*, and nothing states which of the classes"),
    ],
)
def test_images_of_other_classes_are_refused_by_name(tmp_path: Path, names, classes, message: str) -> None:
    data = write_rows(tmp_path / "data", names, each=10)
    for load in (partial(comparison, None, 64), partial(calibration_samples, None)):
        with pytest.raises(DatasetError, match=message):
            load(data, classes=classes)


def test_images_without_labels_are_compared_without_them(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", GRADES.names)
    for index, path in enumerate(sorted(data.rglob("*.png"))):
        path.rename(data / f"{index}.png")
    for folder in GRADES.names:
        (data / folder).rmdir()
    found = gather(Options(parity_data=data), reference(GRADES, GRADES.names), ["fp32"])
    assert found.truth is None
    assert len(found.images) == 30


def test_the_data_of_a_run_is_read_with_the_classes_that_it_recorded(tmp_path: Path) -> None:
    data = label_runs.write_folders(tmp_path / "data", GRADES)
    run = label_runs.write_run(tmp_path / "run", GRADES, data)
    found = comparison(run, 512)
    assert (found.kind, found.samples.classes) == ("held-out", GRADES)
    moved = data.rename(tmp_path / "moved")
    assert comparison(run, 512, moved).kind == "held-out"
    path = run / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, "clinical_order": record["clinical_order"][1:]}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"run\.json: labels are .*, expected the classes of its clinical order"):
        comparison(run, 512)


def test_classes_that_only_the_checkpoint_states_are_compared_once_it_is_read(tmp_path: Path, said: list[str]) -> None:
    data = write_rows(tmp_path / "data", GRADES.names, each=40)
    options = Options(source=tmp_path / "model.pth", parity_data=data)
    check_images(options, {"onnx": ["fp32"]})
    assert said == [f"the classes of {data} are compared with those of {options.source} once it is read"]
    check_calibrated(replace(options, calibration_data=data), {"onnx": ["int8"]})
    with pytest.raises(DatasetError, match="a checkpoint without a run names none"):
        check_calibrated(options, {"onnx": ["int8"]})
    named = replace(options, labels=("Grad 0", "Grad 9"))
    with pytest.raises(DatasetError, match=r"'Größe ≥ 1\.5', '重度 & <rest>' are none of the classes Grad 0, Grad 9"):
        check_images(named, {"onnx": ["fp32"]})
    with pytest.raises(DatasetError, match="are none of the classes Grad 0, Grad 9"):
        check_calibrated(replace(named, calibration_data=data), {"onnx": ["int8"]})
    with pytest.raises(DatasetError, match="does not exist"):
        check_images(replace(options, parity_data=tmp_path / "nowhere"), {"onnx": ["fp32"]})


@pytest.mark.parametrize("classes", [label_set(["CN", "AD"]), CN_MCI_AD, TWENTY])
def test_phantoms_of_a_checkpoint_are_of_its_classes(monkeypatch: pytest.MonkeyPatch, classes: LabelSet) -> None:
    from stageproof.export.data import comparison as compared_on

    monkeypatch.setattr(compared_on, "phantom_samples", partial(phantom_samples, size=32))
    found = comparison(None, 80, classes=classes)
    assert len(found.samples) == 80
    assert set(found.samples.labels.tolist()) == set(range(len(classes)))


def test_phantoms_of_the_four_stages_are_those_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    from stageproof.export.data import comparison as compared_on

    monkeypatch.setattr(compared_on, "phantom_samples", partial(phantom_samples, size=32))
    before = phantom_samples(patients=4, slices=4, seed=compared_on.SEED, size=32)
    assert phantoms(64).digest() == before.digest()


@pytest.mark.parametrize("count", [2, 20])
def test_calibration_images_are_of_every_class(tmp_path: Path, count: int) -> None:
    from PIL import Image

    classes = label_set([f"Klasse {index:02d}" for index in range(count)])
    for label, name in enumerate(classes.names):
        (tmp_path / name).mkdir()
        for index in range(400 // count if label else 70):  # the first class is scarcer or larger than the others
            pixels = np.array([[label, index % 256], [index // 256, 7]], np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"x{label}y{index}.png")
    first, second = calibration_samples(None, tmp_path, limit=120, classes=classes)
    assert len(first) == 120
    assert set(first.labels.tolist()) == set(second.labels.tolist()) == set(range(count))
    assert np.bincount(first.labels).min() >= min(40, 120 // count)
    assert not set(first.names) & set(second.names)


@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_figures_by_class_are_those_of_their_names(count: int) -> None:
    labels = [f"Klasse {index:02d}" for index in range(count)]
    random = np.random.default_rng(count)
    truth = np.repeat(np.arange(count), 60)
    before = np.eye(count, dtype=np.float32)[truth] * 8 + random.normal(0, 1, (len(truth), count)).astype(np.float32)
    after = before.copy()
    last = np.flatnonzero(truth == count - 1)[:30]
    after[last] = np.eye(count, dtype=np.float32)[0] * 6
    found = compare(before, after, labels, tolerance=Tolerance(0.6, 0.5), truth=truth)
    assert found.flipped == found.flipped_by_class[labels[-1]] == 30
    assert found.flip_bound_by_class[labels[-1]] > 0.5 > 0.1 > found.flip_bound_by_class[labels[0]]
    assert found.sensitivity["artifact"] == {
        name: pytest.approx(0.5 if name == labels[-1] else 1.0, abs=0.05) for name in labels
    }
    assert list(found.answers) == labels


@pytest.mark.parametrize("count", [2, 3, 20])
def test_changes_are_forecast_for_any_number_of_classes(count: int) -> None:
    random = np.random.default_rng(count)
    logits = random.normal(0, 3, (70, count)).astype(np.float32)
    errors = random.normal(0, 0.5, (40, count)).astype(np.float32)
    found = changes(logits, errors)
    by_hand = [[(row + error).argmax() != row.argmax() for error in errors] for row in logits]
    assert (found == np.array(by_hand)).all()
    assert probability_to_pass(np.zeros((2000, 40), bool), None, None, 0.02, 0.95) == 1.0


@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_an_order_that_labelled_images_contradict_is_found(count: int) -> None:
    labels = tuple(f"Klasse {index:02d}" for index in range(count))
    random = np.random.default_rng(count)
    truth = np.tile(np.arange(count), 40)
    true_order = np.roll(np.arange(count), 1)  # output j is class true_order[j]
    decided = np.where(random.random(len(truth)) < 0.9, truth, random.integers(0, count, len(truth)))
    logits = np.eye(count)[[int(np.flatnonzero(true_order == one)[0]) for one in decided]]
    found = better_order(logits, truth, labels)  # trying every permutation of 20 classes would not end
    assert found is not None
    assert found[0] == tuple(labels[at] for at in true_order)
    assert found[1] > 0.85
    assert better_order(np.eye(count)[truth], truth, labels) is None
    two_absent = truth < count - 2
    assert count == 2 or better_order(logits[two_absent], truth[two_absent], labels) is None


def test_two_classes_that_chance_has_exchanged_are_not_reported() -> None:
    """Ten patients with ten images each, all answered alike: 0.3 of them right."""
    truth = np.repeat([0, 1] * 5, 10)
    decided = np.where(np.repeat(np.arange(10) < 3, 10), truth, 1 - truth)
    assert better_order(np.eye(2)[decided], truth, ("CN", "AD")) is None


def test_other_positive_classes_make_another_model(small_bundle: Path, said: list[str]) -> None:
    manifest = verified(small_bundle)
    fewer = label_set(FOUR_STAGES.names, FOUR_STAGES.names[2:])
    now = SimpleNamespace(info=replace(manifest.model, classes=fewer), order=SimpleNamespace(origin="run"))
    with_existing(Options(out=small_bundle), now, manifest, {"onnx": ["fp32"]})
    assert "positive classes: VeryMildDemented, MildDemented, ModerateDemented, not MildDemented, Mod" in said[-1]


def test_rebuilding_accepts_any_spelling_of_the_bundles_own_classes(tmp_path: Path) -> None:
    model = ModelInfo("resnet50", "0" * 64, ("AD", "CN", "MCI"), CN_MCI_AD, InputSpec.imagenet(32))
    assert_agrees(Options(labels=("alzheimer", "Control", "mci")), model, tmp_path)
    with pytest.raises(InputError, match=r"--labels is CN AD MCI, but .* was made with AD CN MCI"):
        assert_agrees(Options(labels=("CN", "AD", "MCI")), model, tmp_path)


def test_the_card_of_a_checkpoint_states_order_and_positive_classes() -> None:
    model = ModelInfo("resnet50", "0" * 64, ("AD", "CN", "MCI"), CN_MCI_AD, InputSpec.imagenet(32))
    order = ClassOrder(model.labels, "option", "from --labels", CN_MCI_AD)
    text = model_card(SimpleNamespace(run=None, info=model, order=order, provenance={"checkpoint": "x"})).decode()
    assert "| 0 | AD |\n| 1 | CN |\n| 2 | MCI |" in text
    assert "Clinical order: CN, MCI, AD. Positive in the two-way question (AD or not): AD." in text
