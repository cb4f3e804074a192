"""ONNX and OpenVINO files of strangers: refused before an engine or a parser takes their word."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import BundleError, Predictor, backends
from stageproof.runtime.artifacts.onnx_file import examine
from tests.runtime.hostile import CPU_SECONDS, MIB, OLD, copied, exchanged, load_apart, only, rewritten


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copied(tmp_path / "bundle")


# ONNX. The attacks are made with the onnx package, as an attacker would; the runtime has its own walk.


def attack(change: Callable) -> bytes:
    onnx = pytest.importorskip("onnx", reason="it makes the hostile files")
    model = onnx.load(OLD / "model.onnx")
    change(model, onnx)
    return model.SerializeToString()


def node(operator: str, inputs: list[str], domain: str = "", **attributes: object) -> Callable:
    """The model, with one more operation whose result is added to the logits."""

    def change(model, onnx) -> None:
        model.graph.node.append(onnx.helper.make_node(operator, inputs, ["more"], domain=domain, **attributes))
        model.graph.node.append(onnx.helper.make_node("ReduceMean", ["more"], ["mean"], keepdims=0))

    return change


def initializer(**values: object) -> Callable:
    def change(model, onnx) -> None:
        tensor = model.graph.initializer.add()
        tensor.name, tensor.data_type = "bomb", 1
        for key, value in values.items():
            getattr(tensor, key).extend(value) if isinstance(value, list) else setattr(tensor, key, value)

    return change


def with_shape(values: list[int], after: Callable) -> Callable:
    def change(model, onnx) -> None:
        model.graph.initializer.append(onnx.helper.make_tensor("shape", onnx.TensorProto.INT64, [len(values)], values))
        after(model, onnx)

    return change


def external(location: str) -> Callable:
    def change(model, onnx) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return change


def external_in_an_attribute(model, onnx) -> None:
    tensor = onnx.helper.make_tensor("value", 1, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["more"], value=tensor))


def loop(model, onnx) -> None:
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", ["n", "c"], ["more"], body=body))


def sparse(model, onnx) -> None:
    values = onnx.helper.make_tensor("values", 1, [1], [1.0])
    indices = onnx.helper.make_tensor("indices", 7, [1], [0])
    model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, indices, [1 << 20, 1 << 13]))


def sparse_constant(model, onnx) -> None:
    values = onnx.helper.make_tensor("values", 1, [1], [1.0])
    indices = onnx.helper.make_tensor("indices", 7, [1], [0])
    tensor = onnx.helper.make_sparse_tensor(values, indices, [1 << 20, 1 << 13])
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["more"], sparse_value=tensor))


def domain(model, onnx) -> None:
    model.opset_import.add(domain="com.evil", version=1)
    node("Run", ["images"], domain="com.evil")(model, onnx)


def function(model, onnx) -> None:
    imports = [onnx.helper.make_opsetid("", 18)]
    body = [onnx.helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(onnx.helper.make_function("", "Twice", ["x"], ["y"], body, imports))


def training(model, onnx) -> None:
    model.training_info.add()


def half_a_tensor(model, onnx) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def padding(model, onnx) -> None:
    for one in model.graph.node:
        for attribute in one.attribute:
            if attribute.name == "pads":
                attribute.ints[:] = [1 << 28] * len(attribute.ints)


def outer(operator: str, rows: tuple[int, ...], columns: tuple[int, ...]) -> Callable:
    """A column and a row of 400 kB each, which together make 40 GB."""

    def change(model, onnx) -> None:
        for name, shape in (("column", rows), ("row", columns)):
            values = np.ones(shape, np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        node(operator, ["column", "row"])(model, onnx)

    return change


def paddings(model, onnx) -> None:
    """Each within what an attribute may say."""
    for one in model.graph.node:
        for attribute in one.attribute:
            if attribute.name == "pads":
                attribute.ints[:] = [1 << 16] * len(attribute.ints)


def doubled(model, onnx) -> None:
    """Each twice as wide as the one before."""
    last = "images"
    for step in range(40):
        model.graph.node.append(onnx.helper.make_node("Concat", [last, last], [f"wide{step}"], axis=0))
        last = f"wide{step}"


def large_input(model, onnx) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = 1 << 20


def free_input(model, onnx) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"


def many(model, onnx) -> None:
    """Each small, all of them too much."""
    values = np.ones((1 << 12, 1), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "column"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(values.T.copy(), "row"))
    for step in range(20):
        model.graph.node.append(onnx.helper.make_node("Mul", ["column", "row"], [f"square{step}"]))


def expanded(*made: tuple[str, list[str], str]) -> Callable:
    """A bias expanded to a shape that the nodes `made` compute."""

    def change(model, onnx) -> None:
        for operator, inputs, output in made:
            numbers = {"axis": 0} if operator in ("Concat", "Gather") else {}
            model.graph.node.append(onnx.helper.make_node(operator, inputs, [output], **numbers))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "first"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.int64), "second"))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 1), np.float32), "one"))
        model.graph.node.append(onnx.helper.make_node("Expand", ["one", "target"], ["more"]))

    return change


COUNT = (("Shape", ["images"], "shape_of"), ("Slice", ["shape_of", "first", "second"], "count"))
"""The number of images."""


def from_nowhere(model, onnx) -> None:
    node("Relu", ["nobody"])(model, onnx)


ONNX = {
    "a column plus a row": (outer("Add", (100_000, 1), (1, 100_000)), "its results up to operator"),
    "a column times a row": (outer("MatMul", (100_000, 1), (1, 100_000)), "its results up to operator"),
    "a column and a row by Gemm": (outer("Gemm", (100_000, 1), (1, 100_000)), "its results up to operator"),
    "the larger of a column and a row": (outer("Max", (1, 100_000, 1), (100_000,)), "its results up to operator"),
    "paddings": (paddings, "its results up to operator"),
    "doubled": (doubled, "its results up to operator"),
    "many": (many, "its results up to operator"),
    "a large input": (large_input, "its input has the shape"),
    "an input of any size": (free_input, "its input has the shape"),
    "an input from nowhere": (from_nowhere, "has an undefined input"),
    "17.6 GB in a few bytes": (initializer(dims=[1 << 32]), "declares 17179869184 bytes and has 0|declares 4294967296"),
    "a shape that wraps": (initializer(dims=[1 << 33, 1 << 33]), "declares"),
    "a shape beyond all": (initializer(dims=[1 << 62]), "has the shape"),
    "a negative shape": (initializer(dims=[-1]), "has the shape"),
    "typed values that are not there": (initializer(dims=[1 << 30], float_data=[1.0]), "declares 1073741824 values"),
    "values twice": (initializer(dims=[1], float_data=[1.0], raw_data=b"1234"), "declares"),
    "half a tensor": (half_a_tensor, "declares"),
    "an unknown type": (initializer(dims=[1], data_type=99, raw_data=b"1"), "has data type 99"),
    "text": (initializer(dims=[1], data_type=8, string_data=[b"x"]), "has strings"),
    "external data": (external("weights.bin"), "values in another file"),
    "external data by an absolute path": (external("/etc/passwd"), "values in another file"),
    "external data outside": (external("../../secret"), "values in another file"),
    "external data of an attribute": (external_in_an_attribute, "values in another file"),
    "a loop": (loop, "graph of its own"),
    "sparse": (sparse, "sparse"),
    "a sparse constant": (sparse_constant, "sparse"),
    "another domain": (domain, "domain 'com.evil'"),
    "an operator of another domain": (node("Run", ["images"], domain="com.microsoft"), "com.microsoft"),
    "an engine in a graph": (node("EPContext", ["images"], domain="com.microsoft"), "com.microsoft"),
    "functions": (function, "functions of its own"),
    "a training graph": (training, "training graph"),
    "ConstantOfShape": (with_shape([1 << 20, 1 << 12], node("ConstantOfShape", ["shape"])), "'ConstantOfShape'"),
    "Expand": (with_shape([1 << 20, 1 << 12], node("Expand", ["fc.bias", "shape"])), "'Expand'"),
    "Expand to the square of the number of images": (
        expanded(*COUNT, ("Concat", ["count", "count"], "target")),
        "the output size of its operator 'Expand' cannot be inferred",
    ),
    "Expand to a shape that is not known": (
        expanded(("Shape", ["images"], "shape_of"), ("Gather", ["shape_of", "first"], "target")),
        "the output size of its operator 'Expand' cannot be inferred",
    ),
    "Tile": (with_shape([1 << 32], node("Tile", ["fc.bias", "shape"])), "'Tile'"),
    "Range": (node("Range", ["a", "b", "c"]), "'Range'"),
    "RandomNormal": (node("RandomNormal", [], shape=[1 << 30]), "'RandomNormal'|beyond the limit"),
    "Resize": (node("Resize", ["images", "", "s"]), "'Resize'"),
    "Pad": (node("Pad", ["images", "p"]), "'Pad'"),
    "a padding beyond all": (padding, "beyond the limit"),
}


@pytest.mark.parametrize(("change", "match"), ONNX.values(), ids=ONNX)
def test_a_hostile_onnx_file_never_reaches_an_engine(
    bundle: Path, change: Callable, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(exchanged(bundle, "model.onnx", attack(change)), "model.onnx")
    for name in ("onnx", "openvino"):
        if name in backends.available():
            monkeypatch.setattr(backends.BACKENDS[name], "load", lambda *args, **settings: pytest.fail("it was asked"))
            with pytest.raises(BundleError, match=match) as refused:
                Predictor(bundle, backend=name)
            assert re.search(r"model\.onnx was not loaded: .*(Copy the bundle again|export again)", str(refused.value))


def test_a_file_of_millions_of_parts_is_refused_early() -> None:
    with pytest.raises(ValueError, match="more parts than any network"):
        examine(b"\x08\x01" * (1 << 18))
    with pytest.raises(ValueError, match="more parts"):
        examine(b"\x3a" + b"\x80\x80\x20" + b"\x0a\x00" * (1 << 18))


def test_every_cut_and_many_changed_bytes_are_refused_or_the_same_graph() -> None:
    content = (OLD / "model.onnx").read_bytes()
    whole = examine(content)
    for length in range(0, len(content), 37):
        try:
            assert len(examine(content[:length]).nodes) <= len(whole.nodes)
        except ValueError:
            continue
    rng = np.random.default_rng(0)
    for _ in range(500):
        changed = bytearray(content)
        for at in rng.integers(0, len(content), rng.integers(1, 4)):
            changed[at] = rng.integers(256)
        try:
            examine(bytes(changed))
        except ValueError:
            continue


@pytest.mark.parametrize("name", [name for name in ("onnx", "openvino") if name in backends.available()])
def test_what_a_hostile_file_costs(bundle: Path, name: str) -> None:
    """The 773 bytes of the review."""
    exchanged(bundle, "model.onnx", attack(initializer(dims=[1 << 32])))
    only(bundle, "model.onnx")
    found = load_apart(bundle, "onnxruntime" if name == "onnx" else "openvino", backend=name)
    assert found["said"].startswith("BundleError: ")
    assert found["mib"] < MIB
    assert found["cpu_seconds"] < CPU_SECONDS


# OpenVINO.


def topology(change: Callable[[str], str]) -> bytes:
    return change((OLD / "model.xml").read_text(encoding="utf-8")).encode()


def first_data(old: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(old, new, text, count=1)


XML = {
    "more than the weights have": (first_data(r'size="\d+"', 'size="99999999"'), "by its size|declares"),
    "behind the weights": (first_data(r'offset="\d+"', 'offset="99999999"'), "ends at byte"),
    "a negative place": (first_data(r'offset="\d+"', 'offset="-4"'), "expected a number"),
    "a huge shape": (first_data(r'shape="[^"]*" offset', 'shape="4294967296" offset'), "declares"),
    "an extension": (first_data(r'version="opset\d+"', 'version="extension"'), "'extension'"),
    "another operation": (first_data(r'type="ReLU"', 'type="Loop"'), "'Loop'"),
    "a type": (first_data('element_type="f32" shape="8"', 'element_type="string" shape="8"'), "'string'|declares"),
    "a body": (lambda text: text.replace("</layer>", "<body><layers><layer/></layers></body></layer>", 1), "within"),
    "entities": (lambda text: text.replace("<net", '<!DOCTYPE x [<!ENTITY a "b">]><net', 1), "document type"),
    "a padding": (first_data(r'pads_begin="[^"]*"', 'pads_begin="268435456, 268435456"'), "beyond the limit"),
}


@pytest.mark.skipif("openvino" not in backends.available(), reason="openvino is not installed")
@pytest.mark.parametrize(("change", "match"), XML.values(), ids=XML)
def test_a_hostile_topology_never_reaches_openvino(
    bundle: Path, change: Callable[[str], str], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = topology(change)
    assert content != (OLD / "model.xml").read_bytes()
    exchanged(bundle, "model.xml", content)
    only(bundle, "model.xml")
    monkeypatch.setattr(backends.BACKENDS["openvino"], "load", lambda *args, **settings: pytest.fail("it was asked"))
    with pytest.raises(BundleError, match=match):
        Predictor(bundle, backend="openvino")


# Many small parts: each costs memory and time before anybody looks at what they say.


def many_entries() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for number in range(20_000):
            file.writestr(zipfile.ZipInfo(f"{number:0200d}"), b"")
    return buffer.getvalue()


def many_descriptions() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(100):
            file.writestr(f"{number}/extra/stageproof", b" " * (1 << 20))
    return buffer.getvalue()


PARTS = {
    "a zip directory": ("model.ts", many_entries, "its directory has"),
    "descriptions": ("model.pt2", many_descriptions, "has 100 metadata entries"),
    "elements": ("model.xml", lambda: b"<net>" + b"<a/>" * (5 << 18) + b"</net>", "more than 4194304 bytes"),
    "fields": ("model.onnx", lambda: b"\x72\x00" * (1 << 20), "more parts than any network"),
    "lists": (
        "model.safetensors",
        lambda: (6 << 20).to_bytes(8, "little") + (b'{"a":[' + b"[]," * (2 << 20))[: 6 << 20],
        "its header would have",
    ),
}


@pytest.mark.parametrize(("name", "made", "match"), PARTS.values(), ids=PARTS)
def test_many_small_parts_are_refused_before_they_are_read(
    bundle: Path, name: str, made: Callable[[], bytes], match: str
) -> None:
    exchanged(bundle, name, made())
    with pytest.raises(BundleError, match=match) as refused:
        Predictor(bundle)
    assert name in str(refused.value)


def test_a_manifest_of_many_files(bundle: Path) -> None:
    def more(data: dict) -> None:
        data["documents"] += [{"file": f"{number}.txt", "sha256": "0" * 64} for number in range(2000)]

    with pytest.raises(BundleError, match=r"lists 20\d\d files, expected at most 1000"):
        Predictor(rewritten(bundle, more))
