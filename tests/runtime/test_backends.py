"""One contract over every engine that is installed here: the same answers, alone, in batches and from threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import (
    BackendError,
    BackendUnavailable,
    BundleError,
    InputError,
    Predictor,
    backends,
    preprocess,
    read_image,
)
from stageproof.runtime.predictor import probabilities
from stageproof.runtime.system.cpus import available_cpus

TOLERANCE = 1e-4  # of probabilities, fp32


@pytest.fixture(scope="session")
def images(phantoms, bundle: Path) -> np.ndarray:
    """(64, C, H, W) float32: phantoms of every class, preprocessed."""
    spec = Predictor(bundle, backend="onnx").model.input
    chosen = np.linspace(0, len(phantoms) - 1, 64).astype(int)
    return np.stack([preprocess(read_image(phantoms.read(index)), spec) for index in chosen])


@pytest.fixture(scope="session")
def expected(onnx_predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """(64, classes) float64 probabilities, one image at a time."""
    return probabilities(np.concatenate([onnx_predictor.logits(image[None]) for image in images]))


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert np.abs(got - expected).max() <= TOLERANCE
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 2 * TOLERANCE  # within that a tie may go either way
    assert clear.mean() > 0.9
    assert np.array_equal(got.argmax(1)[clear], expected.argmax(1)[clear])


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_every_backend_decides_alike(predictor: Predictor, images: np.ndarray, expected: np.ndarray, batch) -> None:
    parts = [predictor.logits(images[start : start + batch]) for start in range(0, len(images), batch)]
    assert all(part.dtype == np.float32 for part in parts)
    assert_same(probabilities(np.concatenate(parts), predictor.model.temperature), expected)


@pytest.fixture(scope="session")
def many(onnx_predictor: Predictor) -> tuple[np.ndarray, np.ndarray]:
    """512 phantoms, preprocessed, and their (512, classes) probabilities one at a time."""
    from stageproof.train.data.phantom.__main__ import phantom_samples

    samples = phantom_samples(patients=16, slices=8, size=64, seed=5)
    assert len(samples) == 512
    rows = np.stack([preprocess(read_image(image), onnx_predictor.model.input) for image in samples.images])
    return rows, probabilities(np.concatenate([onnx_predictor.logits(row[None]) for row in rows]))


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_every_backend_decides_alike_on_512_images(predictor: Predictor, many, batch) -> None:
    rows, reference = many
    parts = [predictor.logits(rows[start : start + batch]) for start in range(0, len(rows), batch)]
    assert_same(probabilities(np.concatenate(parts)), reference)


def test_the_comparison_sees_a_wrong_answer(expected: np.ndarray) -> None:
    with pytest.raises(AssertionError):
        assert_same(np.roll(expected, 1, axis=0), expected)


def test_a_result_is_the_callers_own(predictor: Predictor, images: np.ndarray) -> None:
    """Engines reuse their output buffers; what was handed out must not change under the caller."""
    first = predictor.logits(images[:1])
    kept = first.copy()
    predictor.logits(images[1:2])
    assert np.array_equal(first, kept)
    first[:] = 0  # and it may be written to
    assert np.array_equal(predictor.logits(images[:1]), kept)


def test_the_input_stays_as_it_is(predictor: Predictor, images: np.ndarray) -> None:
    before = images[:3].copy()
    predictor.logits(images[:3])
    assert np.array_equal(images[:3], before)


def test_strides_and_byte_order_do_not_matter(predictor: Predictor, images: np.ndarray) -> None:
    straight = predictor.logits(images[:4])
    channel_last = np.ascontiguousarray(np.moveaxis(images[:4], 1, -1))
    assert np.abs(predictor.logits(np.moveaxis(channel_last, -1, 1)) - straight).max() < 1e-5
    assert np.abs(predictor.logits(images[3::-1]) - straight[::-1]).max() < 1e-5


def test_eight_threads_share_one_predictor(predictor: Predictor, phantoms) -> None:
    """Every answer is that of its own image, whoever else asks at the same time."""
    images = phantoms.images[::3]
    alone = [predictor.predict(image).probabilities for image in images]
    together = threading.Barrier(8)

    def ask(worker: int) -> list[tuple[int, float]]:
        together.wait()
        order = np.random.default_rng(worker).permutation(len(images))[:12]
        errors = []
        for index in order:
            got = predictor.predict(images[index]).probabilities
            errors.append((index, max(abs(got[name] - alone[index][name]) for name in got)))
        return errors

    with ThreadPoolExecutor(8) as pool:
        results = [error for errors in pool.map(ask, range(8)) for error in errors]
    assert len(results) == 8 * 12
    assert max(error for _, error in results) < 1e-5


def test_answers_differ_enough_for_the_test_above(onnx_predictor: Predictor, phantoms) -> None:
    """Guards it: had a thread been given its neighbour's answer, the difference would have shown."""
    values = [tuple(onnx_predictor.predict(image).probabilities.values()) for image in phantoms.images[::3]]
    gaps = [max(abs(a - b) for a, b in zip(one, other, strict=True)) for one, other in pairwise(values)]
    assert np.median(gaps) > 1e-4


# The table, and what is not here.


@pytest.mark.parametrize("module", backends.BACKENDS.values(), ids=backends.BACKENDS)
def test_a_backend_module_keeps_the_protocol(module) -> None:
    assert backends.BACKENDS[module.NAME] is module
    assert set(module.FORMATS) <= set(backends.SUFFIXES.values())
    assert all(isinstance(extra, str) for extra in module.REQUIRES.values())
    assert set(module.DEVICES) <= set(backends.DEVICES)
    assert callable(module.load)


def test_unknown_names_are_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"There is no backend 'tensorflow'\. Backends: tensorrt, openvino, onnx"):
        backends.backend_module("tensorflow")


def test_a_missing_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, bundle: Path) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    assert backends.available() == []
    with pytest.raises(
        BackendUnavailable, match=r"'onnx' needs the package onnxruntime: pip install 'stageproof\[onnx\]'"
    ):
        Predictor(bundle, backend="onnx")
    with pytest.raises(BackendUnavailable, match=r"No artifact of .* can run here\..*needs the package"):
        Predictor(bundle)
    with pytest.raises(BackendUnavailable, match=r"No backend here runs \.onnx files: 'openvino' needs.*'onnx' needs"):
        Predictor(bundle / "model.onnx")


@pytest.mark.parametrize("name", [name for name in backends.available() if "cpu" in backends.BACKENDS[name].DEVICES])
def test_a_file_that_is_no_artifact(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"broken{next(s for s, f in backends.SUFFIXES.items() if f in backends.BACKENDS[name].FORMATS)}"
    path.write_bytes(b"\x08\x01 not a model" * 40)
    with pytest.raises((BackendError, BundleError), match=r"cannot load .*broken|broken\S+ (was not loaded|cannot be)"):
        backends.load(name, path, precision="fp32", device="cpu", threads=1, trust_code=True)


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_a_gpu_is_refused_where_there_is_none(predictor: Predictor, device: str) -> None:
    torch = pytest.importorskip("torch", reason="it tells whether this machine has CUDA")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(
        BackendUnavailable,
        match=r"device='cpu'|pip install 'stageproof\[gpu\]'|was requested\. Backends for '(cuda|tensorrt)': ",
    ):
        Predictor(predictor.artifact.parent, backend=predictor.backend, device=device, trust_code=True)


def test_choosing_for_a_gpu_passes_over_what_needs_none(bundle: Path) -> None:
    """Not a failure, so no warning: each says on which device it runs."""
    torch = pytest.importorskip("torch", reason="it tells whether this machine has CUDA")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(
        BackendUnavailable, match=r"in openvino \(.*\): runs on device 'cpu', but device='tensorrt' was"
    ):
        Predictor(bundle, device="tensorrt")
    with pytest.raises(InputError, match=r"device is 'tpu', expected one of 'cpu', 'cuda', 'tensorrt'"):
        Predictor(bundle, device="tpu")


def test_openvino_asked_for_fp16_never_computes_in_bf16(images: np.ndarray, other_formats: Path) -> None:
    """Which it does by itself where the CPU has units for the one and not for the other."""
    pytest.importorskip("openvino", reason="it is what is asked")

    def logits(precision: str) -> np.ndarray:
        loaded = backends.load("openvino", other_formats / "model.xml", precision=precision, device="cpu", threads=1)
        return loaded.run(images[:16])

    exact = logits("fp32")
    coarse = np.abs(logits("bf16") - exact).max()
    if coarse == 0:
        pytest.skip("this CPU has no bf16 units, with which the test would have seen the fault")
    assert np.abs(logits("fp16") - exact).max() < coarse / 4  # fp16 has three bits more


@pytest.mark.skipif(available_cpus() < 2, reason="one processor has no others")
def test_openvino_with_fewer_threads_is_tied_to_no_processor(other_formats: Path) -> None:
    """Several processes with few threads each, as web servers have them, would all be tied to the same ones."""
    pytest.importorskip("openvino", reason="it is what is asked")
    for threads, tied in ((1, False), (available_cpus(), True)):
        engine = backends.load("openvino", other_formats / "model.xml", precision="fp32", device="cpu", threads=threads)
        assert engine._compiled.get_property("ENABLE_CPU_PINNING") is tied  # type: ignore[attr-defined]


@pytest.mark.skipif(available_cpus() < 2, reason="OpenVINO takes no more threads than processors")
def test_openvino_for_several_calls_is_one_model_with_as_many_streams(other_formats: Path) -> None:
    pytest.importorskip("openvino", reason="it is what is asked")
    for calls, hint in ((1, "LATENCY"), (2, "THROUGHPUT")):
        engine = backends.load(
            "openvino",
            other_formats / "model.xml",
            precision="fp32",
            device="cpu",
            threads=2,
            concurrent_calls=calls,
        )
        compiled = engine._compiled  # type: ignore[attr-defined]
        assert compiled.get_property("PERFORMANCE_HINT") == hint
        assert compiled.get_property("NUM_STREAMS") == calls
        assert compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS") == calls
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 2


@pytest.mark.parametrize(("threads", "calls", "each"), [(2, 1, 2), (2, 2, 1), (5, 2, 2), (1, 1, 1)])
def test_onnx_runtime_divides_its_threads_among_the_calls(bundle: Path, threads: int, calls: int, each: int) -> None:
    engine = backends.load(
        "onnx", bundle / "model.onnx", precision="fp32", device="cpu", threads=threads, concurrent_calls=calls
    )
    session = engine._session  # type: ignore[attr-defined]
    assert session.get_session_options().intra_op_num_threads == each


@pytest.mark.parametrize(("threads", "calls", "each"), [(2, 1, 2), (2, 2, 1), (5, 2, 2)])
def test_pytorch_divides_its_threads_among_the_calls(bundle: Path, threads: int, calls: int, each: int) -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    try:
        backends.load(
            "torchscript",
            bundle / "model.ts",
            precision="fp32",
            device="cpu",
            threads=threads,
            concurrent_calls=calls,
            trust_code=True,
        )
        assert torch.get_num_threads() == each
    finally:
        torch.set_num_threads(before)


def test_a_relu_before_8_bit_floats_stays(tmp_path: Path) -> None:
    """ONNX Runtime, left alone, takes it out."""
    onnx = pytest.importorskip("onnx", reason="the graph is made with it")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["images"], ["positive"]),
            helper.make_node("QuantizeLinear", ["positive", "scale", "zero"], ["eight bits"]),
            helper.make_node("DequantizeLinear", ["eight bits", "scale", "zero"], ["logits"]),
        ],
        "graph",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.5]),
            helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0]),
        ],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    for name in ("onnx", "openvino"):
        if name in backends.available():
            loaded = backends.load(name, path, precision="fp8", device="cpu", threads=1)
            assert loaded.run(np.float32([[-3, -0.5, 0, 3]])).tolist() == [[0, 0, 0, 3]]
