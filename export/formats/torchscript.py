"""TorchScript, traced and frozen. Deprecated by PyTorch since 2.9 and still asked for."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

from export.reference import Reference
from runtime.errors import ExportError
from runtime.manifest import METADATA_KEY

NAME = "torchscript"
PRECISIONS = ("fp32",)
FILE = "model.ts"


def build(reference: Reference, path: Path) -> None:
    """Write the reference as one `.ts` file. Raises ExportError when tracing fails."""
    import torch

    spec = reference.info.input
    example = torch.zeros(2, spec.channels, spec.height, spec.width)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore", FutureWarning)  # `python -m export` says it once, in our words
            module = torch.jit.freeze(torch.jit.trace(reference.model, example))
            torch.jit.save(module, path, _extra_files={METADATA_KEY: json.dumps(reference.info.to_dict())})
    except RuntimeError as error:
        raise ExportError(f"torch.jit.trace of {reference.info.architecture} failed: {error}") from error
