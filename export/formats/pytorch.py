"""PyTorch weights as `.safetensors`: tensors and metadata, without code."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

from stageproof.export.formats.built import Built, Found
from stageproof.export.hashed_files import write
from stageproof.runtime.backends.networks import is_known
from stageproof.runtime.bundle.manifest import METADATA_KEY

if TYPE_CHECKING:
    from stageproof.export.reference.context import Job

NAME = "pytorch"
PRECISIONS = ("fp32", "fp16", "bf16")
SUFFIX = ".safetensors"
REQUIRES = {"torch": "torch", "safetensors": "torch"}
NEEDS_GPU = False
PIXELS = False


def build(job: Job, precision: str, path: Path) -> Built:
    """The result of writing the reference's weights as one `.safetensors` file.

    BatchNorm of a ResNet is folded in float32, as for the other formats: its statistics lose too much in half
    precision, and the folded network is faster. Other networks are stored with the layers of torchvision, which builds
    them when they are loaded.
    """
    from safetensors.torch import save
    from torch.fx.experimental.optimization import fuse

    from stageproof.export.graphs.half_precision import DTYPES

    model = copy.deepcopy(job.reference.model)
    stored = (fuse(model) if is_known(job.reference.info.architecture) else model).to(DTYPES[precision])
    weights = {name: tensor.contiguous() for name, tensor in stored.state_dict().items()}
    return Built({path.name: write(path, save(weights, {METADATA_KEY: json.dumps(job.description(precision))}))})


def inspect(path: Path) -> Found:
    """The type of the weight of each convolution and matrix product in the file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        weights = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    return Found.of(tensor.dtype for tensor in weights if tensor.ndim >= 2)
