"""Predictor's own logic: which engine serves, what is refused, and what comes back in which order."""

from __future__ import annotations

import gc
import itertools
import json
import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime import (
    BackendError,
    BackendUnavailable,
    BundleError,
    ImageError,
    InputError,
    Prediction,
    Predictor,
    backends,
)
from runtime.choice import candidates
from runtime.manifest import read_manifest

# Which engine serves.


def test_the_fastest_at_export_serves(edit: Callable) -> None:
    for fast in ("onnx", "openvino"):

        def rank(data: dict, fast: str = fast) -> None:
            for artifact in data["artifacts"]:
                for check in artifact["checks"]:
                    check["latency_ms"] = 1.0 if check["backend"] == fast else 9.0

        bundle = edit(rank)
        if backends.missing(fast) is None:
            predictor = Predictor(bundle)
            assert predictor.backend == fast
            assert predictor.explain()[0].endswith(f"serves, {predictor.engine}")
            assert all("not tried: an earlier one serves" in line for line in predictor.explain()[1:])
        assert candidates(read_manifest(bundle), None, None)[0].check.backend == fast


def test_what_does_not_run_is_passed_over_with_a_warning(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.load

    def load(name: str, path: Path, **settings: object) -> backends.Backend:
        if path.suffix == ".onnx":
            raise BackendError("no kernel image is available for execution on the device")
        return real(name, path, **settings)

    monkeypatch.setattr(backends, "load", load)
    with pytest.warns(RuntimeWarning, match=r"model\.onnx in .*does not run here: no kernel.*export it again here"):
        predictor = Predictor(copy)
    assert predictor.artifact == copy / "model.ts"
    assert any("does not run here: no kernel image" in line for line in predictor.explain())
    with pytest.raises(BackendError, match="no kernel image"):
        Predictor(copy, backend="onnx")


def test_an_engine_that_loads_and_cannot_run_is_found_at_load(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.load

    def load(name: str, path: Path, **settings: object) -> backends.Backend:
        backend = real(name, path, **settings)
        if name == "onnx":
            backend.run = lambda images: np.full((len(images), 4), np.nan, np.float32)
        return backend

    monkeypatch.setattr(backends, "load", load)
    with pytest.raises(BackendError, match="gave logits that are not finite numbers"):
        Predictor(copy, backend="onnx")


def test_a_named_backend_never_falls_back(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fastest = Predictor(copy).backend
    monkeypatch.setattr(backends, "missing", lambda name: "is not here" if name == fastest else None)
    with pytest.raises(BackendUnavailable, match=rf"'{fastest}' is not here\. Available here: "):
        Predictor(copy, backend=fastest)
    predictor = Predictor(copy)
    assert predictor.backend != fastest
    assert any(line.endswith("is not here") for line in predictor.explain())


def test_what_may_never_serve_is_explained_too(edit) -> None:
    def change(data) -> None:
        (artifact,) = [entry for entry in data["artifacts"] if entry["file"] == "model.ts"]
        artifact.update(checks=[], requires={"compute_capability": "8.9", "version": "1.7"})

    built = "built for compute capability 8.9, version 1.7"
    folder = edit(change)
    assert Predictor(folder).explain()[-1] == (
        f"model.ts (fp32): never served: nothing could check it where it was exported; {built}"
    )
    with pytest.raises(BackendUnavailable, match=rf"No artifact of .* can serve here\..*never served.*{built}\."):
        Predictor(folder, device="tensorrt")
    pixels = "uint8 (N, H, W, C)"
    folder = edit(lambda data: (change(data), data["artifacts"][1].update(takes=pixels)))
    assert "takes uint8 (N, H, W, C), for programs without this library" in Predictor(folder).explain()[-1]


def test_what_the_bundle_does_not_have(bundle: Path) -> None:
    with pytest.raises(InputError, match=r"nothing that passed parity for precision='int4'\. It has: fp32 in"):
        Predictor(bundle, precision="int4")
    with pytest.raises(InputError, match=r"No backend is called 'Onnx'\. Backends: "):
        Predictor(bundle, backend="Onnx")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"device": "gpu"}, "device is 'gpu', expected one of 'cpu', 'cuda', 'tensorrt'"),
        ({"threads": 0}, "threads is 0, expected at least 1"),
        ({"abstain_below": 1.0}, "abstain_below is 1.0, expected 0 or more and below 1"),
        ({"abstain_below": float("nan")}, "abstain_below is nan"),
    ],
)
def test_arguments_that_make_no_sense(bundle: Path, arguments: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Predictor(bundle, **arguments)


# Lone artifacts.


@pytest.mark.parametrize("name", ["model.onnx", "model.ts"])
def test_a_lone_artifact_predicts_as_its_bundle(bundle: Path, tmp_path: Path, scan: Path, name: str) -> None:
    os.link(bundle / name, tmp_path / name)
    alone, whole = Predictor(tmp_path / name), Predictor(bundle, guard=False)
    assert alone.model == whole.model
    assert alone.precision == "unknown"
    assert alone.explain() == []
    got, expected = alone.predict(scan), whole.predict(scan)
    assert got.label == expected.label
    assert got.probabilities == pytest.approx(dict(expected.probabilities), abs=1e-4)


def test_a_lone_file_that_makes_no_sense(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(BundleError, match=r"notes\.txt is not an artifact this runtime knows \(\.onnx.*Give a bundle"):
        Predictor(tmp_path / "notes.txt")
    with pytest.raises(InputError, match=r"whose precision cannot be chosen"):
        Predictor(bundle / "model.onnx", precision="fp32")
    with pytest.raises(InputError, match=r"'torchscript' does not run \.onnx files\. These do: openvino, onnx"):
        Predictor(bundle / "model.onnx", backend="torchscript")
    with pytest.raises(InputError, match="has no golden images to replay"):
        Predictor(bundle / "model.onnx").self_test()


def test_an_onnx_file_of_somebody_else(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="it writes the stranger's file")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", floats, [None, 1])],
        [helper.make_tensor_value_info("y", floats, [None, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "theirs.onnx")
    with pytest.raises(BundleError, match=r"carries no labels and input size of its own.*python -m export"):
        Predictor(tmp_path / "theirs.onnx")


# One image.


def test_a_prediction_is_complete(onnx_predictor: Predictor, scan: Path) -> None:
    prediction = onnx_predictor.predict(scan)
    assert prediction.status == "ok"
    assert (prediction.code, prediction.reason) == ("", "")
    assert list(prediction.probabilities) == ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"]
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert (
        prediction.probability == max(prediction.probabilities.values()) == prediction.probabilities[prediction.label]
    )
    assert (
        prediction.cdr
        == {"NonDemented": 0, "VeryMildDemented": 0.5, "MildDemented": 1, "ModerateDemented": 2}[prediction.label]
    )
    assert prediction.model_digest == onnx_predictor.model.digest
    assert (prediction.backend, prediction.precision) == ("onnx", "fp32")
    assert min(prediction.timings.read_ms, prediction.timings.preprocess_ms, prediction.timings.inference_ms) > 0


def test_every_kind_of_source_gives_the_same(onnx_predictor: Predictor, scan: Path) -> None:
    pixels = np.asarray(Image.open(scan))
    sources = [
        scan,
        str(scan),
        scan.read_bytes(),
        scan.open("rb"),
        Image.open(scan),
        pixels,
        np.stack([pixels] * 3, -1),
    ]
    answers = {tuple(onnx_predictor.predict(source).probabilities.values()) for source in sources}
    sources[3].close()
    assert len(answers) == 1


def test_what_cannot_be_read_is_the_readers_error(onnx_predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file"):
        onnx_predictor.predict(tmp_path / "none.png")
    with pytest.raises(ImageError, match="expected a path"):
        onnx_predictor.predict(3)


def test_temperature_is_applied_and_changes_no_decision(onnx_predictor: Predictor, edit: Callable, phantoms) -> None:
    cold = Predictor(edit(lambda data: data["model"].update(temperature=0.25)), backend="onnx", guard=False)
    for image in phantoms.images[::12]:
        plain, sharp = onnx_predictor.predict(image), cold.predict(image)
        assert sharp.label == plain.label
        names = list(plain.probabilities)
        powers = np.array([plain.probabilities[name] for name in names]) ** 4
        assert [sharp.probabilities[name] for name in names] == pytest.approx(list(powers / powers.sum()), abs=1e-5)


def test_unsure_abstains(bundle: Path, edit: Callable, scan: Path) -> None:
    sure = Predictor(bundle, backend="onnx", guard=False).predict(scan)
    for predictor in (
        Predictor(bundle, backend="onnx", guard=False, abstain_below=0.99),
        Predictor(edit(lambda data: data["model"].update(abstain_below=0.99)), backend="onnx", guard=False),
    ):
        answer = predictor.predict(scan)
        assert (answer.status, answer.code) == ("abstained", "unsure")
        assert (answer.label, answer.cdr, answer.probability) == (None, None, None)
        assert answer.probabilities == sure.probabilities
        assert "below the 99.0% this model answers from" in answer.reason


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((3, 32, 32), np.float32),
        np.zeros((1, 1, 32, 32), np.float32),
        np.zeros((1, 3, 32, 31), np.float32),
        np.zeros((1, 3, 32, 32)),
        np.zeros((0, 3, 32, 32), np.float32),
        np.zeros((1, 3, 32, 32), np.uint8),
    ],
    ids=lambda images: f"{images.dtype}{images.shape}",
)
def test_other_shapes_and_types_are_refused(onnx_predictor: Predictor, images: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"images is \w+ of shape .*; this bundle expects float32 \(N, 3, 32, 32\)"):
        onnx_predictor.logits(images)


# Many images.


def test_batches_of_any_size_keep_the_order(onnx_predictor: Predictor, phantoms) -> None:
    images = phantoms.images[:23]
    alone = [onnx_predictor.predict(image) for image in images]
    for size in (1, 7, 23, 64):
        together = onnx_predictor.predict_batch(iter(images), batch_size=size)
        assert [p.label for p in together] == [p.label for p in alone]
        for one, other in zip(together, alone, strict=True):
            assert one.probabilities == pytest.approx(dict(other.probabilities), abs=1e-5)
    assert onnx_predictor.predict_batch([]) == []


def test_an_error_is_its_items_result_and_stops_nothing(onnx_predictor: Predictor, phantoms, tmp_path: Path) -> None:
    images = [phantoms.images[0], b"", phantoms.images[1], tmp_path / "none.png", None, phantoms.images[2]]
    results = onnx_predictor.predict_batch(images, batch_size=2)
    assert [result.status for result in results] == ["ok", "rejected", "ok", "rejected", "rejected", "ok"]
    assert {result.code for result in results if result.status == "rejected"} == {"unreadable"}
    assert "is empty (0 bytes)" in results[1].reason
    assert "no such file" in results[3].reason
    assert "got builtins.NoneType" in results[4].reason
    assert results[1].probabilities == {}
    assert results[1].label is None
    assert results[5].probabilities == pytest.approx(dict(onnx_predictor.predict(images[5]).probabilities), abs=1e-5)


def test_an_engine_that_fails_stops_the_batch(copy: Path, phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(copy, backend="onnx", guard=False)

    def run(images: np.ndarray) -> np.ndarray:
        raise RuntimeError("device lost")

    monkeypatch.setattr(predictor._serving.engine, "run", run)
    with pytest.raises(BackendError, match=r"onnxruntime .* failed on a batch of 4: device lost"):
        predictor.predict_batch(phantoms.images[:4])


@pytest.mark.parametrize("one", ["scan.jpg", b"bytes", Path("scan.jpg")])
def test_one_image_where_several_are_expected(onnx_predictor: Predictor, one: object) -> None:
    with pytest.raises(InputError, match=r"expected several\. Use predict\(\) for one image"):
        onnx_predictor.predict_batch(one)
    with pytest.raises(InputError, match="batch_size is 0, expected at least 1"):
        onnx_predictor.stream([], batch_size=0)
    with pytest.raises(InputError, match="workers is -1, expected at least 1"):
        onnx_predictor.stream([], workers=-1)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stream_takes_no_more_than_it_needs(onnx_predictor: Predictor, phantoms, workers: int) -> None:
    """Constant memory: never more than workers + 1 batches are taken ahead, and what was answered is let go."""
    taken, alive = 0, weakref.WeakSet()

    class Source:
        def read(self) -> bytes:
            return phantoms.images[0]

    def endless():
        nonlocal taken
        while True:
            taken += 1
            source = Source()
            alive.add(source)
            yield source

    stream = onnx_predictor.stream(endless(), batch_size=4, workers=workers)
    ahead = 4 * (workers + 1)
    assert taken == 0
    most = 0
    for answered, prediction in enumerate(itertools.islice(stream, 40), start=1):
        assert prediction.status == "ok"
        assert taken <= answered + ahead
        if answered % 10 == 0:
            gc.collect()
            most = max(most, len(alive))
    assert 0 < most <= ahead + 2
    stream.close()


def test_the_next_batch_is_read_while_the_engine_runs(copy: Path, phantoms, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's first run, held until the images after its batch are read: without the overlap it would fail."""
    predictor = Predictor(copy, backend="onnx", guard=False)
    real, read, held = predictor._serving.engine.run, threading.Semaphore(0), iter([True])

    class Source:
        def __init__(self, data: bytes) -> None:
            self.data = data

        def read(self) -> bytes:
            read.release()
            return self.data

    def run(images: np.ndarray) -> np.ndarray:
        if next(held, False):
            for _ in range(4):  # this batch's two images, and the next batch's two
                assert read.acquire(timeout=20), "the next batch was not read while this one ran"
        return real(images)

    monkeypatch.setattr(predictor._serving.engine, "run", run)
    sources = (Source(image) for image in phantoms.images[:8])
    results = list(predictor.stream(sources, batch_size=2, workers=2))
    assert [prediction.status for prediction in results] == ["ok"] * 8


def test_a_stream_that_is_left_leaves_no_thread(onnx_predictor: Predictor, phantoms) -> None:
    stream = onnx_predictor.stream(itertools.cycle(phantoms.images), batch_size=2)
    next(stream)
    stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("neurostage-lane")]


def test_an_iterable_that_fails_passes_its_error_on(onnx_predictor: Predictor, phantoms) -> None:
    def broken():
        yield phantoms.images[0]
        raise KeyError("the caller's own")

    with pytest.raises(KeyError, match="the caller's own"):
        onnx_predictor.predict_batch(broken())


# Studies.


def test_a_study_is_the_mean_of_its_slices(onnx_predictor: Predictor, phantoms) -> None:
    images = [*phantoms.images[:4], b"broken"]
    study = onnx_predictor.predict_study(images)
    assert (study.used, study.rejected) == ((0, 1, 2, 3), (4,))
    table = np.array([list(study.slices[index].probabilities.values()) for index in study.used])
    assert list(study.probabilities.values()) == pytest.approx(list(table.mean(0)))
    assert list(study.spread.values()) == pytest.approx(list(table.std(0)))
    assert study.label == list(study.probabilities)[int(table.mean(0).argmax())]
    assert study.agreement == np.mean(table.argmax(1) == table.mean(0).argmax())
    assert study.status == "ok"


def test_a_study_of_nothing_usable(onnx_predictor: Predictor) -> None:
    study = onnx_predictor.predict_study([b"", b"x"])
    assert (study.status, study.label, study.rejected) == ("rejected", None, (0, 1))
    assert "all 2 slices were rejected" in study.reason
    with pytest.raises(InputError, match="images is empty"):
        onnx_predictor.predict_study([])


def test_a_study_can_be_unsure(bundle: Path, phantoms) -> None:
    study = Predictor(bundle, backend="onnx", guard=False, abstain_below=0.99).predict_study(phantoms.images[:4])
    assert (study.status, study.label) == ("abstained", None)
    assert study.probabilities
    assert study.agreement is not None


# Self-test.


def test_golden_images_agree_here(guarded_bundle: Path) -> None:
    for backend in ("onnx", None):
        result = Predictor(guarded_bundle, backend=backend, self_test=True).self_test()
        assert result.passed
        assert result.images == 6
        assert result.max_probability_difference < result.tolerance == 1e-4
        assert json.loads(json.dumps(result.to_dict()))["flipped"] == 0


def test_an_engine_that_computes_differently_is_noticed(guarded_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = backends.load

    def load(name: str, path: Path, **settings: object) -> backends.Backend:
        backend = real(name, path, **settings)
        run = backend.run
        backend.run = lambda images: run(images) + np.array([0.01, 0, 0, 0], np.float32)
        return backend

    monkeypatch.setattr(backends, "load", load)
    result = Predictor(guarded_bundle, backend="onnx").self_test()
    assert not result.passed
    assert 1e-4 < result.max_probability_difference < 1e-2
    with pytest.raises(BackendError, match=r"self-test failed: 6 golden images, .* Do not use .*model\.onnx on this"):
        Predictor(guarded_bundle, backend="onnx", self_test=True)


def test_a_bundle_without_golden_images(copy: Path, edit: Callable) -> None:
    bundle = edit(lambda data: data.pop("golden", None))
    shutil.rmtree(bundle / "golden", ignore_errors=True)
    with pytest.raises(InputError, match="has no golden images to replay"):
        Predictor(bundle, backend="onnx").self_test()


def test_predictions_survive_json(onnx_predictor: Predictor, scan: Path) -> None:
    for prediction in onnx_predictor.predict_batch([scan, b"broken"]):
        assert Prediction.from_dict(json.loads(json.dumps(prediction.to_dict()))) == prediction
