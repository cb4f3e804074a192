"""Inputs and outputs of every layer with weights, read from an ONNX or an OpenVINO graph.

A layer is identified by the name of its weight in the trained model (`layer1.0.conv1`), which every exporter keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.export.graphs.metadata import KEY, channel_scales
from stageproof.runtime.errors import InputError
from stageproof.runtime.system.offline_import import import_onnxruntime, import_without

_ONNX_LAYERS = ("Conv", "Gemm", "MatMul")
_OPENVINO_LAYERS = ("Convolution", "MatMul")


@dataclass(frozen=True)
class Activation:
    """Input and output of one layer, float32, batch dimension first."""

    input: np.ndarray
    output: np.ndarray


def activations(path: Path, images: np.ndarray) -> dict[str, Activation]:
    """Layer → Activation, in graph order. images: (N, C, H, W) float32.

    Raises InputError for a file that is neither `.onnx` nor `.xml`.
    """
    readers = {".onnx": _from_onnx, ".xml": _from_openvino}
    if path.suffix not in readers:
        raise InputError(f"{path.name}: layer outputs can be read from {' and '.join(readers)} files only.")
    return readers[path.suffix](path, images)


def _from_onnx(path: Path, images: np.ndarray) -> dict[str, Activation]:
    import onnx

    onnxruntime = import_onnxruntime()

    model = onnx.load(path)
    graph = model.graph
    made = {output: node for node in graph.node for output in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    ends = {}
    for node in graph.node:
        if node.op_type in _ONNX_LAYERS:
            weight = node.input[1]
            while weight not in stored:
                weight = made[weight].input[0]
            ends[_layer(weight)] = (node.input[0], node.output[0])
    wanted = list(dict.fromkeys(name for pair in ends.values() for name in pair if name != "images"))
    present = {value.name for value in graph.output}
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in present)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    # Operator fusion would remove the tensors between layers.
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    values = dict(zip(wanted, session.run(wanted, {"images": images}), strict=True))
    values["images"] = images
    found = {layer: Activation(*(values[name].astype(np.float32) for name in pair)) for layer, pair in ends.items()}
    return _as_trained(found, next((entry.value for entry in model.metadata_props if entry.key == KEY), None))


def _from_openvino(path: Path, images: np.ndarray) -> dict[str, Activation]:
    openvino = import_without("openvino", "openvino_telemetry")

    core = openvino.Core()
    model = core.read_model(path)
    ends: dict[str, tuple[Any, Any]] = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() in _OPENVINO_LAYERS:
            weight = op.input_value(1).get_node()
            while weight.get_type_name() != "Constant":
                weight = weight.input_value(0).get_node()
            ends[_layer(weight.get_friendly_name())] = (op.input_value(0), _with_bias(op))
    for pair in ends.values():
        for output in pair:
            if output.get_node().get_type_name() != "Parameter":
                model.add_outputs(output)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    results = compiled([images])
    named = {name: results[port].astype(np.float32) for port in compiled.outputs for name in port.get_names()}
    found = {layer: Activation(*(_value(end, named, images) for end in pair)) for layer, pair in ends.items()}
    entry = ["framework", KEY]
    return _as_trained(found, str(model.get_rt_info(entry).value) if model.has_rt_info(entry) else None)


def _as_trained(found: dict[str, Activation], metadata: str | None) -> dict[str, Activation]:
    """The activations, with the channel scaling that was applied before quantisation undone."""
    scales = {_layer(weight): pair for weight, pair in channel_scales(metadata).items()}

    def divided(values: np.ndarray, factors: np.ndarray | None) -> np.ndarray:
        return values if factors is None else values / factors.reshape(1, -1, *[1] * (values.ndim - 2))

    trained = {}
    for layer, activation in found.items():
        into, out = scales.get(layer, (None, None))
        trained[layer] = Activation(divided(activation.input, into), divided(activation.output, out))
    return trained


def _with_bias(op: Any) -> Any:
    """The output after the bias, which OpenVINO adds in a separate operation, for a Gemm after a multiplication."""
    for target in op.output(0).get_target_inputs():
        following = target.get_node()
        if following.get_type_name() in ("Add", "Multiply"):
            other = following.input_value(1 - target.get_index()).get_node()
            while other.get_input_size():
                other = other.input_value(0).get_node()
            if other.get_type_name() == "Constant":  # a residual connection leads to the Parameter instead
                return following.output(0) if following.get_type_name() == "Add" else _with_bias(following)
    return op.output(0)


def _value(end: Any, named: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    if end.get_node().get_type_name() == "Parameter":
        return images
    return next(named[name] for name in end.get_names() if name in named)


def _layer(weight: str) -> str:
    """The layer, such as `layer1.0.conv1`, from the name of its weight in any exported graph."""
    name = weight.removeprefix("model.")
    for ending in ("_quantized", "_compressed", ".weight"):
        name = name.removesuffix(ending)
    return name
