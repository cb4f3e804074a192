"""torch.export: PyTorch's successor to TorchScript, one `.pt2` file with a dynamic batch axis."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from stageproof.export.formats.built import Built, Found
from stageproof.export.graphs.debug_info import without_stack_traces
from stageproof.export.hashed_files import write
from stageproof.runtime.bundle.manifest import METADATA_KEY
from stageproof.runtime.errors import ExportError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from stageproof.export.reference.context import Job

NAME = "torch-export"
PRECISIONS = ("fp32", "bf16")
SUFFIX = ".pt2"
REQUIRES = {"torch": "torch"}
NEEDS_GPU = False
PIXELS = False


def build(job: Job, precision: str, path: Path) -> Built:
    """The result of writing the reference as one `.pt2` file. Raises ExportError if torch.export fails."""
    import torch

    buffer = io.BytesIO()
    program = without_stack_traces(exported(job, precision))
    torch.export.save(program, buffer, extra_files={METADATA_KEY: json.dumps(job.description(precision))})
    return Built({path.name: write(path, buffer.getvalue())})


def exported(job: Job, precision: str) -> ExportedProgram:
    """The reference as a program with a dynamic batch axis. Raises ExportError if torch.export fails."""
    import torch

    from stageproof.export.graphs.half_precision import lowered

    info = job.reference.info
    # A batch of two: with a batch of one, torch.export may specialise the axis to a constant.
    example = torch.zeros(2, *info.input.shape)
    try:
        with torch.no_grad():
            return torch.export.export(
                lowered(job.reference.model, precision),
                (example,),
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                strict=False,
            )
    except Exception as error:  # torch.export raises exceptions of any type
        raise ExportError(f"torch.export of {info.architecture} failed: {error}") from error


def inspect(path: Path) -> Found:
    """The type of the weight of each convolution and matrix product in the file."""
    import torch

    program = torch.export.load(path)
    return Found.of(tensor.dtype for tensor in program.state_dict.values() if tensor.ndim >= 2)
