"""An ONNX file of another program: what it must be like, its graph in the form that exports have, and its logits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from stageproof.runtime.artifacts.onnx_file import examine
from stageproof.runtime.artifacts.onnx_sizes import assert_bounded
from stageproof.runtime.errors import BackendUnavailable, CheckpointError
from stageproof.runtime.system.offline_import import import_onnxruntime

if TYPE_CHECKING:
    from onnx import ModelProto

TARGET = 18
"""Opset to which older graphs are converted: that of all other graphs here, on which quantisation relies."""
_BATCHES = (1, 2, 5)
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


class OnnxFile(nn.Module):
    """The graph of the file, run by ONNX Runtime: (N, C, H, W) float32 to (N, classes) float32.

    Raises CheckpointError for a graph that is no classifier of float32 images; BackendUnavailable without ONNX Runtime.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        import onnx

        self.path = path
        try:
            self.proto: ModelProto = onnx.load(path)
            onnx.checker.check_model(self.proto, full_check=True)
        except Exception as error:  # protobuf, the checker and shape inference raise exceptions of any type
            raise CheckpointError(
                f"{path} cannot be read as an ONNX graph: {str(error).strip().splitlines()[0]}. Export it again where "
                "it was made."
            ) from error
        self.opset = self._opset()
        self.input, self.channels, self.size, self.batch = self._input()
        self.output, self.softmax_removed = self._output()
        if self.softmax_removed:
            self.proto.graph.output[0].name = self.output
        self._prepared = self._renamed()
        self._assert_plausible()
        self._session = _session(self.proto, path)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, classes) logits; a graph with a fixed batch is run in batches of that size."""
        rows, step = [], self.batch or len(images)
        for start in range(0, len(images), step):
            part = images[start : start + step].numpy()
            padded = np.concatenate([part, np.zeros((step - len(part), *part.shape[1:]), part.dtype)])
            rows.append(self._session.run([self.output], {self.input: padded})[0][: len(part)])
        return torch.from_numpy(np.concatenate(rows))

    def graph(self) -> ModelProto:
        """The graph with input ``images`` and output ``logits``, a batch axis of any length, and opset 18 or later.

        Raises CheckpointError if it works only for the batch size that it was exported for.
        """
        model = self._prepared
        session, shape = _session(model, self.path), (self.channels, *(side or 224 for side in self.size))
        images = np.random.default_rng(0).standard_normal((_BATCHES[-1], *shape), np.float32)
        expected = self.forward(torch.from_numpy(images)).numpy()
        for count in _BATCHES:
            try:
                got = session.run(["logits"], {"images": images[:count]})[0]
            except Exception as error:  # ONNX Runtime raises exceptions of any type
                raise CheckpointError(self._fixed()) from error
            if got.shape != expected[:count].shape or not np.allclose(got, expected[:count], rtol=1e-3, atol=1e-4):
                raise CheckpointError(self._fixed())
        return model

    def _renamed(self) -> ModelProto:
        """The graph with input ``images``, output ``logits``, a batch axis without a length, and opset 18 or later."""
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        _rename(model, {self.input: "images", self.output: "logits"})
        image = next(value for value in model.graph.input if value.name == "images")
        for value in (image, model.graph.output[0]):
            if value.type.tensor_type.shape.dim:
                value.type.tensor_type.shape.dim[0].dim_param = "batch"
        del model.graph.value_info[:]
        del model.metadata_props[:]
        if self.opset >= TARGET:
            return model
        try:
            converted: ModelProto = onnx.version_converter.convert_version(model, TARGET)
        except Exception as error:  # the converter raises exceptions of any type
            raise CheckpointError(
                f"{self.path} has opset {self.opset} and cannot be converted to {TARGET}: "
                f"{str(error).strip().splitlines()[0]}. Export it again with opset_version={TARGET}."
            ) from error
        return converted

    def _assert_plausible(self) -> None:
        """Raise CheckpointError for operators and sizes with which no artifact is loaded (`runtime.artifacts`)."""
        try:
            assert_bounded(examine(self._prepared.SerializeToString()))
        except (ValueError, RecursionError, KeyError, EOFError, OverflowError) as error:
            raise CheckpointError(
                f"{self.path} cannot be exported: {error}, and an artifact with it would not be loaded."
            ) from error

    def _fixed(self) -> str:
        return (
            f"{self.path} works only for batches of {self.batch or 'one size'}, expected any. Export it again with a "
            "dynamic batch axis: torch.onnx.export(model, image, path, dynamo=True, dynamic_shapes=({0: "
            "torch.export.Dim('batch')},))"
        )

    def _opset(self) -> int:
        import onnx

        if foreign := sorted({one.domain for one in self.proto.opset_import} - set(_DOMAINS)):
            raise CheckpointError(
                f"{self.path} uses operators of {', '.join(foreign)}, which only that program runs; expected those of "
                "ONNX."
            )
        version = next((one.version for one in self.proto.opset_import if one.domain in ("", "ai.onnx")), 1)
        newest = onnx.defs.onnx_opset_version()
        if not 7 <= version <= newest:
            raise CheckpointError(f"{self.path} has ONNX opset {version}, expected 7 to {newest}.")
        return int(version)

    def _input(self) -> tuple[str, int, tuple[int | None, int | None], int | None]:
        """(name, channels, (height, width), batch) of the input; None for a dynamic axis."""
        stored = {tensor.name for tensor in self.proto.graph.initializer}
        inputs = [value for value in self.proto.graph.input if value.name not in stored]
        shown = "; ".join(_described(value) for value in inputs)
        expected = "expected one input of float32 images, (N, C, H, W) with 1 or 3 channels."
        if len(inputs) != 1:
            raise CheckpointError(f"{self.path} has {len(inputs)} inputs ({shown}), {expected}")
        kind = inputs[0].type.tensor_type
        dims = [one.dim_value or None for one in kind.shape.dim]
        if kind.elem_type != 1 or len(dims) != 4 or dims[1] not in (1, 3):
            last = len(dims) == 4 and dims[3] in (1, 3) and dims[1] not in (1, 3)
            why = " Its channels are last: transpose the input, or export it from PyTorch." if last else ""
            raise CheckpointError(f"{self.path} has the input {shown}, {expected}{why}")
        if any(side is not None and not 8 <= side <= 4096 for side in dims[2:]):
            raise CheckpointError(f"{self.path} has the input {shown}, expected sides of 8 to 4096 pixels.")
        return inputs[0].name, int(dims[1]), (dims[2], dims[3]), dims[0]

    def _output(self) -> tuple[str, bool]:
        """(name of the logits, whether they are the input of a final Softmax, which is left out)."""
        outputs = list(self.proto.graph.output)
        if len(outputs) != 1:
            shown = "; ".join(_described(value) for value in outputs)
            raise CheckpointError(f"{self.path} has {len(outputs)} outputs ({shown}), expected one: the logits.")
        name = outputs[0].name
        made = next((node for node in self.proto.graph.node if name in node.output), None)
        if made is not None and made.op_type == "Sigmoid":
            raise CheckpointError(
                f"{self.path} ends in a Sigmoid, which gives each class a probability of its own; expected logits of "
                "classes that exclude each other."
            )
        if made is not None and made.op_type == "Softmax":
            self.proto.graph.node.remove(made)
            return made.input[0], True
        return name, False


def _rename(model: ModelProto, names: dict[str, str]) -> None:
    """Rename tensors in place; a tensor that has one of the new names already gets another one."""
    names = {**{new: f"{new}_of_file" for new in names.values() if new not in names}, **names}
    graph = model.graph
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [names.get(name, name) for name in field]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = names.get(value.name, value.name)


def _described(value: Any) -> str:
    import onnx

    kind = value.type.tensor_type
    dims = ", ".join(str(one.dim_value or one.dim_param or "?") for one in kind.shape.dim)
    return f"{value.name}: {onnx.TensorProto.DataType.Name(kind.elem_type).lower()} ({dims})"


def _session(model: ModelProto, path: Path) -> Any:
    try:
        onnxruntime = import_onnxruntime()
    except ImportError as error:
        raise BackendUnavailable(
            "An ONNX file is run by ONNX Runtime, which is not installed: pip install 'stageproof[onnx]'."
        ) from error
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises exceptions of any type
        raise CheckpointError(f"ONNX Runtime cannot load {path}: {str(error).strip().splitlines()[0]}") from error
