"""TorchScript, traced and frozen. PyTorch deprecates it since 2.9; existing programs still use it."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from stageproof.export.formats.built import Built, Found
from stageproof.export.graphs.debug_info import without_debug_sources
from stageproof.export.hashed_files import write
from stageproof.export.preprocessing import TAKES
from stageproof.runtime.bundle.manifest import METADATA_KEY, TENSOR
from stageproof.runtime.errors import ExportError

if TYPE_CHECKING:
    from stageproof.export.reference.context import Job

NAME = "torchscript"
PRECISIONS = ("fp32", "fp16", "bf16")
SUFFIX = ".ts"
REQUIRES = {"torch": "torch"}
NEEDS_GPU = False
PIXELS = True

_WEIGHTED = ("aten::_convolution", "aten::conv2d", "aten::linear", "aten::addmm", "aten::matmul")


def build(job: Job, precision: str, path: Path, pixels: bool = False) -> Built:
    """The result of writing the reference as one `.ts` file. Raises ExportError if tracing fails."""
    import torch

    from stageproof.export.graphs.half_precision import lowered
    from stageproof.export.preprocessing.torch import WithPixels

    info, softmax = job.reference.info, job.options.with_softmax
    description = job.description(precision, pixels)
    example = torch.zeros(2, *info.input.shape)
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore", FutureWarning)  # `python -m export` prints its own deprecation notice
            module = torch.jit.trace(lowered(job.reference.model, precision), example)
            if pixels:
                # Scripted, since a trace would fix the image size.
                module = torch.jit.script(WithPixels(module, info.input, info.temperature if softmax else None).eval())
            torch.jit.save(torch.jit.freeze(module), buffer, _extra_files={METADATA_KEY: json.dumps(description)})
    except RuntimeError as error:
        raise ExportError(f"TorchScript of {info.architecture} failed: {error}") from error
    return Built({path.name: write(path, without_debug_sources(buffer.getvalue()))}, takes=TAKES if pixels else TENSOR)


def inspect(path: Path) -> Found:
    """The type of the weight of each convolution and matrix product in the file."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        module = torch.jit.load(str(path))
    nodes = [node for node in module.inlined_graph.nodes() if node.kind() in _WEIGHTED]
    stored = [value.toIValue() for node in nodes for value in list(node.inputs())[1:2]]
    # A product of two activations, as in attention, has no stored weight.
    return Found.of(tensor.dtype for tensor in stored if isinstance(tensor, torch.Tensor))
