"""ONNX and TorchScript files of other programs as references: exported and gated, or refused for what they are."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from stageproof.export import run as pipeline
from stageproof.export.formats import build as produce
from stageproof.export.graphs.float_graph import exported
from stageproof.export.options import Options
from stageproof.export.preconditions import check
from stageproof.export.reference.graph_source import makeable
from stageproof.export.reference.source import load_reference
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.errors import CheckpointError, InputError, StageproofError, TrustError
from stageproof.runtime.labels import LABELS
from stageproof.runtime.predictor import Predictor
from tests import tiny


class Ending(nn.Module):
    """The tiny network, with another layer behind it."""

    def __init__(self, model: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.model, self.last = model, last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.model(images))


@pytest.fixture(scope="module")
def network(tiny_checkpoint: Path) -> nn.Module:
    model = tiny.build()
    model.load_state_dict(torch.load(tiny_checkpoint, weights_only=True))
    return model.eval().requires_grad_(False)


def write_onnx(model: nn.Module, path: Path, batch: int = 2, fixed: bool = False, opset: int = 13) -> Path:
    """By torch's older exporter, as most files in circulation."""
    axes = {} if fixed else {"x": {0: "n"}, "y": {0: "n"}}
    example = torch.zeros(batch, 3, tiny.SIZE, tiny.SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (example,), str(path), dynamo=False, opset_version=opset, input_names=["x"], output_names=["y"],
            dynamic_axes=axes,
        )  # fmt: skip
    return path


def write_script(model: nn.Module, path: Path, **more: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(model, torch.zeros(2, 3, tiny.SIZE, tiny.SIZE)), str(path), **more)
    return path


def load(path: Path, **more: Any) -> Any:
    return load_reference(Options(**{"source": path, **more}))


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, tiny.SIZE, tiny.SIZE), np.float32)


def run(model: onnx.ModelProto, batch: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": batch})[0]


@pytest.mark.parametrize(("fixed", "batch", "opset"), [(False, 2, 18), (True, 1, 13), (True, 3, 11), (False, 2, 9)])
def test_an_onnx_file_is_the_reference_and_its_graph_takes_any_batch(network, tmp_path, fixed, batch, opset):
    reference = load(write_onnx(network, tmp_path / "model.onnx", batch, fixed, opset))
    info = reference.info
    assert (info.architecture, info.input.shape, len(info.labels)) == ("onnx-file", (3, tiny.SIZE, tiny.SIZE), 4)
    expected = network(torch.from_numpy(images())).numpy()
    assert np.abs(reference.logits(images()) - expected).max() < 1e-4
    graph = exported(reference, "fp32")
    for count in (1, 2, 5):
        assert np.abs(run(graph, images(count)) - expected[:count]).max() < 1e-4
    with pytest.raises(InputError, match=r"--image-size is 32, but .* takes images of 16 × 16"):
        load(tmp_path / "model.onnx", image_size=32)


def test_a_final_softmax_is_left_out_and_said(network, tmp_path):
    reference = load(write_onnx(Ending(network, nn.Softmax(1)).eval(), tmp_path / "model.onnx"))
    expected = network(torch.from_numpy(images())).numpy()
    assert np.abs(reference.logits(images()) - expected).max() < 1e-4
    assert any("final Softmax" in row["value"] for row in reference.provenance["inferred"])
    assert np.abs(run(exported(reference, "fp32"), images()) - expected).max() < 1e-4


def test_a_torchscript_file_is_loaded_only_if_it_is_trusted(network, tmp_path):
    path = write_script(network, tmp_path / "model.pt")
    for call in (lambda: load(path, image_size=tiny.SIZE), lambda: check(Options(source=path, out=tmp_path / "b"))):
        with pytest.raises(TrustError, match=r"contains code, which loading it runs\. Noth.*--trust-code"):
            call()
    reference = load(path, image_size=tiny.SIZE, trust_code=True)
    expected = network(torch.from_numpy(images())).numpy()
    assert np.array_equal(reference.logits(images()), expected)
    assert np.abs(run(exported(reference, "fp32"), images()) - expected).max() < 1e-4


class Fixed(nn.Module):
    """Its graph contains the batch size."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(images)
        return logits - logits.mean(0, keepdim=True)


def onnx_of(shape: list[Any], kind: int = 1, inputs: int = 1, outputs: int = 1, domain: str = "") -> bytes:
    """A graph whose outputs are the values of its first input, in rows."""
    given = [helper.make_tensor_value_info(f"x{at}", kind, shape) for at in range(inputs)]
    made = [helper.make_tensor_value_info(f"y{at}", kind, ["n", "m"]) for at in range(outputs)]
    nodes = [helper.make_node("Flatten", ["x0"], [f"y{at}"], domain=domain) for at in range(outputs)]
    domains = [helper.make_opsetid("", 18), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph(nodes, "g", given, made)
    return helper.make_model(graph, opset_imports=domains, ir_version=10).SerializeToString()


REFUSED: dict[str, tuple[bytes, str]] = {
    "channels last": (onnx_of(["n", 16, 16, 3]), r"has the input x0: float \(n, 16, 16, 3\), .*Its channels are last"),
    "bytes": (onnx_of(["n", 3, 16, 16], TensorProto.UINT8), r"x0: uint8 .*expected one input of float32 images"),
    "half precision": (onnx_of(["n", 3, 16, 16], TensorProto.FLOAT16), r"x0: float16 .*expected one input of float32"),
    "a vector": (onnx_of(["n", 3]), r"x0: float \(n, 3\), expected one input"),
    "five channels": (onnx_of(["n", 5, 16, 16]), r"x0: float \(n, 5, 16, 16\), expected one input"),
    "two inputs": (onnx_of(["n", 3, 16, 16], inputs=2), r"has 2 inputs \(x0: .*; x1: "),
    "two outputs": (onnx_of(["n", 3, 16, 16], outputs=2), r"has 2 outputs .*expected one: the logits"),
    "a huge image": (onnx_of(["n", 3, 16, 99999]), r"expected sides of 8 to 4096 pixels"),
    "operators of another program": (onnx_of(["n", 3, 16, 16], domain="my.ops"), r"operators of my\.ops, which only"),
    "no graph": (b"\x08\x0a\x12\x03abc" + bytes(20), r"cannot be read as an ONNX graph"),
}


@pytest.mark.parametrize("variant", REFUSED)
def test_another_graph_is_refused_for_what_it_is(variant, tmp_path):
    content, message = REFUSED[variant]
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (nn.Sigmoid(), "ends in a Sigmoid"),
        (nn.Sequential(nn.Softmax(1), nn.Hardtanh(0, 1)), r"returns probabilities \(each row sums to 1\)"),
        (nn.Linear(4, 21), r"output of shape \(1, 21\)"),
    ],
)
def test_another_output_is_refused_for_what_it_is(network, last, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        load(write_onnx(Ending(network, last).eval(), tmp_path / "model.onnx"))


def test_a_graph_whose_outputs_depend_on_the_batch_is_not_made_to_take_any(network, tmp_path):
    reference = load(write_onnx(Fixed(network).eval(), tmp_path / "model.onnx", 3, fixed=True))
    with pytest.raises(StageproofError, match=r"works only for batches of 3, expected any.*dynamic batch axis"):
        exported(reference, "fp32")


def test_other_names_of_tensors_than_ours_are_kept_apart(network, tmp_path):
    """A graph that uses the names `images` and `logits` for other tensors than its input and output."""
    path = write_onnx(network, tmp_path / "model.onnx")
    model = onnx.load(path)
    inner = model.graph.node[0].output[0]
    for node in model.graph.node:
        for field in (node.input, node.output):
            field[:] = ["logits" if name == inner else name for name in field]
    onnx.save(model, path)
    expected = network(torch.from_numpy(images())).numpy()
    assert np.abs(run(exported(load(path), "fp32"), images()) - expected).max() < 1e-4


def test_what_cannot_be_made_is_refused_by_name(network, tmp_path):
    path = write_onnx(network, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"pytorch fp32, torch-export bf16 cannot be made from an ONNX file"):
        makeable(path, {"onnx": ["fp32"], "pytorch": ["fp32"], "torch-export": ["bf16"]}, every=False)
    assert makeable(path, {"onnx": ["fp32", "fp16"], "pytorch": ["fp32"]}, every=True) == {"onnx": ["fp32"]}
    with pytest.raises(InputError, match=r"--architecture is for state dicts; .* is a graph"):
        load(path, architecture="resnet50")
    with pytest.raises(InputError, match=r"--checkpoint-key is for state dicts"):
        load(path, checkpoint_key="model")


def test_our_own_artifact_describes_itself(tiny_bundle, tmp_path):
    own = read_manifest(tiny_bundle).model
    for name in ("model.onnx", "model.ts"):
        found = load(tiny_bundle / name, trust_code=True).info
        assert (found.labels, found.classes, found.input) == (own.labels, own.classes, own.input)
        assert found.temperature == own.temperature == 1.25
        with pytest.raises(InputError, match=r"--mean differs from what .* says about itself"):
            load(tiny_bundle / name, trust_code=True, mean=(0.1, 0.1, 0.1), std=(1.0, 1.0, 1.0))


def test_an_artifact_in_another_precision_is_no_reference(tiny_bundle, tmp_path):
    model = onnx.load(tiny_bundle / "model.onnx")
    for entry in model.metadata_props:
        entry.value = json.dumps({**json.loads(entry.value), "precision": "int8"})
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match=r"is an artifact in int8: artifacts are compared with float32"):
        load(tmp_path / "model.onnx")


@pytest.fixture
def in_this_process():
    """Exports without a process for each format, and without a second timing."""
    with (
        patch.object(pipeline, "timed", lambda folder, artifacts, *rest: list(artifacts)),
        patch.object(pipeline, "run_in_child_process", lambda task, given, log: task(*given)),
    ):
        yield
    assert produce.load_reference is load_reference


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_it_is_exported_and_gated_like_any_other(kind, network, tmp_path):
    write = write_onnx if kind == "onnx" else write_script
    path, out = write(network, tmp_path / "model.bin"), tmp_path / "bundle"
    options = Options(
        source=path, out=out, to=("onnx", "openvino"), parity_images=16, threads=1, trust_code=kind != "onnx",
        image_size=None if kind == "onnx" else tiny.SIZE, labels=("MCI", "AD", "CN", "SMC"),
    )  # fmt: skip
    result = pipeline.export(options)
    assert [outcome.status for outcome in result.outcomes] == ["passed", "passed"], result.outcomes
    manifest = read_manifest(out)
    assert (manifest.model.architecture, manifest.labels_from) == (f"{kind}-file", "option")
    assert manifest.model.classes.names == ("CN", "SMC", "MCI", "AD")
    found = Predictor(out, isolate=False)
    assert set(found.predict(np.zeros((64, 64), np.uint8)).probabilities) == {"MCI", "AD", "CN", "SMC"}
    assert "input size" in {row["what"] for row in manifest.provenance["inferred"]}


class Deep(nn.Module):
    """Enough convolutions that int8 is counted as such."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        sizes = (3, 16, 16, 16, 16)
        self.layers = nn.ModuleList(nn.Conv2d(*pair, 3, 1, 1) for pair in itertools.pairwise(sizes))
        self.fc = nn.Linear(16, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            images = torch.relu(layer(images))
        return self.fc(images.mean((2, 3)))


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_int8_is_made_from_it_and_gated(kind, slices, tmp_path):
    from stageproof.train.data.sources.source import load_samples

    model = tiny.fitted(load_samples(slices), Deep())
    path, out = (write_onnx if kind == "onnx" else write_script)(model, tmp_path / "model.bin"), tmp_path / "bundle"
    options = Options(
        source=path, out=out, to=("openvino", "onnx"), precision=("int8",), parity_images=320, threads=1,
        trust_code=kind != "onnx", image_size=tiny.SIZE, flip_tolerance=0.5, tolerance=0.9, calibration_data=slices,
    )  # fmt: skip
    result = pipeline.export(options)
    assert [outcome.status for outcome in result.outcomes] == ["passed", "passed"], result.outcomes
    assert {artifact.precision for artifact in read_manifest(out).artifacts} == {"int8"}


@pytest.mark.parametrize(
    "text",
    [json.dumps(LABELS), str(dict(enumerate(LABELS))), json.dumps({"classes": LABELS, "epoch": 3})],
    ids=["list", "printed", "nested"],
)
@pytest.mark.parametrize("kind", ["onnx", "ts"])
def test_the_order_that_a_graph_states_is_used_and_not_assumed(
    network: nn.Module, tmp_path: Path, kind: str, text: str
) -> None:
    path, key = tmp_path / f"model.{kind}", "config" if "epoch" in text else "names"
    if kind == "ts":
        write_script(network, path, _extra_files={f"{key}.json": text, "picture.bin": b"\xff\xfe"})
    else:
        write_onnx(network, path)
        proto = onnx.load(path)
        proto.metadata_props.add(key=key, value=text)
        onnx.save(proto, path)
    found = load(path, image_size=tiny.SIZE, trust_code=True)
    assert (found.order.origin, found.info.labels) == ("checkpoint", tuple(LABELS))
    other = sorted(LABELS, reverse=True)
    with pytest.raises(InputError, match="Contradictory class orders"):
        load(path, image_size=tiny.SIZE, trust_code=True, labels=tuple(other))
