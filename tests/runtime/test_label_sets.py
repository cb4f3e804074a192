"""Any label set, from the bundle to what is printed: the right class has the right probability, in clinical order."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageFont

from stageproof.runtime import BundleError, InputError, Prediction, Predictor, preprocess, read_image
from stageproof.runtime.__main__ import main
from stageproof.runtime.audit.verification import check
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.cli.output import classes_in, columns
from stageproof.runtime.explain.explanation import explain_prediction
from stageproof.runtime.explain.overlay import _legible, _wrapped
from stageproof.runtime.labels import LABELS
from stageproof.runtime.softmax import probabilities
from stageproof.runtime.study import evidence_of
from tests.runtime import label_bundles as made

OLD = Path(__file__).parents[1] / "data" / "bundle-0.1"


@pytest.fixture(scope="module", params=made.SETS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "bundle"
    return made.write_bundle(folder, made.model_of(made.SETS[request.param]))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A bundle of three classes that may be changed."""
    return made.write_bundle(tmp_path / "bundle", made.model_of(made.SETS["3"]))


def expected(bundle: Path, image: Path) -> dict[str, float]:
    """Class → probability, computed without the runtime's classes."""
    model = read_manifest(bundle).model
    values = made.logits(model, image).astype(np.float64) / model.temperature
    shares = np.exp(values - values.max())
    return dict(zip(model.labels, (shares / shares.sum()).tolist(), strict=True))


def test_each_class_has_its_own_probability_in_clinical_order(bundle: Path, tmp_path: Path) -> None:
    predictor = Predictor(bundle, backend="onnx", threads=1)
    classes = predictor.model.classes
    assert predictor.model.labels != classes.names, "outputs in clinical order would hide an exchange"
    images = made.write_images(tmp_path / "images")
    found = predictor.predict_batch(images)
    for image, one in zip(images, found, strict=True):
        right = expected(bundle, image)
        assert tuple(one.probabilities) == classes.names
        assert dict(one.probabilities) == pytest.approx(right, abs=1e-5)
        assert one.label == max(right, key=right.__getitem__)
        assert one.cdr == (float(one.label.removeprefix("CDR ")) if one.label.startswith("CDR") else None)
        assert Prediction.from_dict(json.loads(json.dumps(one.to_dict()))) == one == pickle.loads(pickle.dumps(one))
    assert len({one.label for one in found}) > 1, "one answer for everything would hide an exchange"
    assert predictor.self_test().passed
    study = predictor.predict_study(images)
    shares = np.array([[one.probabilities[label] for label in predictor.model.labels] for one in found])
    assert predictor.model.study is not None
    by_rule = predictor.model.study.probabilities(evidence_of(shares, 1.5).mean(0, keepdims=True))[0]
    assert tuple(study.probabilities) == classes.names
    assert dict(study.probabilities) == pytest.approx(dict(zip(predictor.model.labels, by_rule, strict=True)))
    assert study.method == "calibrated"
    assert (study.cdr is None) == (not classes.has_cdr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no guard
        lone = Predictor(bundle / "model.onnx", backend="onnx", threads=1)
    assert lone.model == predictor.model
    assert lone.predict(images[0]).probabilities == found[0].probabilities


def test_the_command_prints_every_class_and_resumes(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    images = made.write_images(tmp_path / "images", 4)
    arguments = ["--bundle", str(bundle), "--backend", "onnx", "--threads", "1", *map(str, images)]
    names = read_manifest(bundle).model.classes.names
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(any(name in one for one in lines) for name in names)
    assert max(len(one) for one in lines if not one.startswith("/")) <= 80
    assert main([*arguments, "--csv"]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    assert not any(one[0] in "=+-@" for one in header)
    assert len(set(header)) == len(header) == 5 + len(names) + 9
    for image, row in zip(images, rows, strict=True):
        right = expected(bundle, image)
        assert [float(value) for value in row[5 : 5 + len(names)]] == pytest.approx([right[n] for n in names], abs=1e-5)
        assert row[header.index("label")].removeprefix("'") == max(right, key=right.__getitem__)
    whole, part, log = tmp_path / "whole.csv", tmp_path / "part.csv", tmp_path / "log.jsonl"
    assert main([*arguments, "--output", str(whole), "--audit", str(log)]) == 0
    kept = whole.read_bytes().split(b"\n")
    part.write_bytes(b"\n".join(kept[:3]) + b"\n" + kept[3][:20])
    assert main([*arguments, "--output", str(part), "--resume"]) == 0
    first, second = (list(csv.reader(io.StringIO(path.read_bytes().decode()))) for path in (whole, part))
    assert [row[:-3] for row in first] == [row[:-3] for row in second], "all but the times"
    assert check(log).anchor.startswith("4:")
    logged = [json.loads(one) for one in log.read_text(encoding="utf-8").splitlines()[1:]]
    assert [tuple(one["probabilities"]) for one in logged] == [names] * 4
    capsys.readouterr()
    assert main([*arguments, "--info"]) == 0
    told = capsys.readouterr().out
    assert f"order      {' < '.join(names)} (clinical)" in told
    assert f"positive   {', '.join(read_manifest(bundle).model.classes.positive)}" in told


def test_a_file_of_other_classes_is_not_resumed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    images = [str(path) for path in made.write_images(tmp_path / "images", 2)]
    out, bundles = tmp_path / "out.csv", {}
    for name in ("2", "3"):
        bundles[name] = str(made.write_bundle(tmp_path / name, made.model_of(made.SETS[name])))
    assert main(["--bundle", bundles["2"], *images, "--output", str(out)]) == 0
    before = out.read_bytes()
    assert main(["--bundle", bundles["3"], *images, "--output", str(out), "--resume"]) == 2
    told = capsys.readouterr().err
    assert f"{out} has columns for the classes CN, AD; this model's are {', '.join(made.SETS['3'].names)}." in told
    assert out.read_bytes() == before


def test_a_class_to_explain_is_named_in_any_spelling(own: Path) -> None:
    """`.pt2` files are not needed to find out that there is no such class."""
    made.rewrite(own, lambda data: data["artifacts"][0]["checks"][0].update(backend="torch-export"))
    image = own / "golden" / "0.png"
    with pytest.raises(InputError, match=r"label is 'AD', expected one of Grad 1\.0 \(gesund\), Größe ≥ 2, 重度"):
        explain_prediction(own, image, "AD")
    for spelt in ("GRÖSSE ≥ 2", "größe ≥ 2", " Größe ≥ 2 "):
        with pytest.raises(BundleError, match="backend 'torch-export' does not run onnx"):  # the class was found
            explain_prediction(own, image, spelt)


def test_a_caption_names_classes_that_its_font_cannot_draw() -> None:
    assert _legible("Grade 1.5, AD…") == "Grade 1.5, AD…"
    assert _legible("重度 Größe") == r"\u91cd\u5ea6 Gr\xf6\xdfe"
    lines = _wrapped(_legible("Grad-CAM of " + "重" * 64), 15, 400)
    assert all(ImageFont.load_default(15).getlength(line) <= 400 for line in lines)
    assert "".join(lines).replace(" ", "") == "Grad-CAMof" + r"\u91cd" * 64


TAKEN = ["label", "probability of label", "probability of probability of label", "probability of x", "x", "'=a", "=a"]


def test_no_two_classes_share_a_column_whatever_they_are_called() -> None:
    found = columns(TAKEN)
    assert len(set(found)) == len(found)
    assert classes_in(found) == tuple(TAKEN)
    for name in columns(["a", "b"]):
        if name not in ("a", "b"):
            assert classes_in(columns([name, "b"])) == (name, "b")
            assert f"probability of {name}" in columns([name, "b"])
    assert classes_in(columns(LABELS)) == LABELS == columns(LABELS)[5:9], "the columns of version 0.1"


Change = Callable[[dict[str, Any]], object]
CHANGED: dict[str, tuple[Change, str]] = {
    "another positive": (lambda m: m.update(positive=m["clinical_order"][1:2]), "has positive "),
    "no positive": (lambda m: m.pop("positive"), "has positive "),
    "outputs exchanged": (lambda m: m["labels"].reverse(), "has labels "),
    "clinical order reversed": (lambda m: m["clinical_order"].reverse(), "has clinical_order |'positive' is "),
    "a class renamed": (
        lambda m: m.update(json.loads(json.dumps(m, ensure_ascii=False).replace("Größe", "Grösse"))),
        "has labels ",
    ),
    "positive empty": (lambda m: m.update(positive=[]), r"'positive' is \[\], expected one or more of"),
    "positive unknown": (lambda m: m.update(positive=["AD"]), "positive classes AD: expected some of"),
    "all positive": (lambda m: m.update(positive=m["clinical_order"]), "all classes are positive"),
    "positive no list": (lambda m: m.update(positive="重度 & <rest>"), "expected a list of class names"),
    "positive null": (lambda m: m.update(positive=[None]), "expected a list of class names"),
    "a class more": (lambda m: m["labels"].append("more"), "expected the classes of its clinical order"),
    "21 classes": (
        lambda m: m.update(labels=[str(i) for i in range(21)], clinical_order=[str(i) for i in range(21)]),
        "21 classes .*, expected 2 to 20",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGED.values(), ids=CHANGED)
def test_a_manifest_that_differs_from_its_artifacts_is_refused(own: Path, change: Change, message: str) -> None:
    """Also where the digest was computed again."""
    made.rewrite(own, lambda data: change(data["model"]))
    with pytest.raises(BundleError, match=message):
        verified(own)
    with pytest.raises(BundleError, match=message):
        Predictor(own)


@pytest.mark.parametrize("name", ["model.onnx", "second.onnx"])
def test_an_artifact_that_differs_from_the_manifest_and_the_other_one_is_refused(own: Path, name: str) -> None:
    model = read_manifest(own).model
    made.with_artifact(own, name, model)
    verified(own)
    for what in ({"labels": list(made.permuted(model).labels)}, {"positive": list(model.classes.names[1:])}):
        made.with_artifact(own, name, model, **what)
        with pytest.raises(BundleError, match=rf"{name} has {next(iter(what))} "):
            verified(own)


@pytest.mark.parametrize("change", [{}, {"positive": ["VeryMildDemented", "MildDemented", "ModerateDemented"]}])
def test_a_bundle_of_0_1_answers_to_the_bit(tmp_path: Path, change: dict[str, Any]) -> None:
    """Its artifacts record no positive classes: these are all but NonDemented, whether a manifest says so or not."""
    bundle = Path(shutil.copytree(OLD, tmp_path / "bundle"))
    made.rewrite(bundle, lambda data: data["model"].update(change))
    predictor = Predictor(bundle, backend="onnx", threads=1)
    assert predictor.model.classes.positive == LABELS[1:]
    for golden in sorted((OLD / "golden").glob("*.png")):
        one = predictor.predict(golden)
        pixels = preprocess(read_image(golden), predictor.model.input)[None]
        right = probabilities(predictor.logits(pixels), 1.25)[0].tolist()
        assert list(one.probabilities.items()) == [(name, right[predictor.model.labels.index(name)]) for name in LABELS]
        assert one.cdr == (None if one.label is None else (0.0, 0.5, 1.0, 2.0)[LABELS.index(one.label)])


@pytest.mark.parametrize("positive", [["ModerateDemented"], ["MildDemented", "ModerateDemented"]])
def test_a_manifest_of_0_1_cannot_be_given_other_positives(tmp_path: Path, positive: list[str]) -> None:
    bundle = Path(shutil.copytree(OLD, tmp_path / "bundle"))
    made.rewrite(bundle, lambda data: data["model"].update(positive=positive))
    with pytest.raises(BundleError, match=r"has positive .*'VeryMildDemented', 'MildDemented', 'ModerateDemented'"):
        verified(bundle)
