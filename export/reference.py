"""What is exported: the eager float32 model from a run directory or a foreign checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from runtime.digests import sha256_file
from runtime.errors import CheckpointError, InputError
from runtime.labels import ALPHABETICAL
from runtime.manifest import ModelInfo, read_manifest
from runtime.preprocess import InputSpec
from train.checkpoint import WEIGHTS, load_weights, read_state
from train.models import CHANNELS, build
from train.record import read_record
from train.runs import run_of


@dataclass(frozen=True)
class Reference:
    """The model every artifact is compared with, and where it came from."""

    model: nn.Module
    """Eager, float32, eval mode, on the CPU."""
    info: ModelInfo
    provenance: dict[str, Any]
    run: Path | None
    """The run directory; None for a foreign checkpoint."""

    def logits(self, images: np.ndarray, batch_size: int = 16) -> np.ndarray:
        """(N, classes) float32 logits of (N, C, H, W) float32 images."""
        with torch.inference_mode():
            parts = [
                self.model(torch.from_numpy(part)) for part in np.array_split(images, -(-len(images) // batch_size))
            ]
        return torch.cat(parts).numpy()


def from_run(run: Path) -> Reference:
    """The model of a run directory. Raises CheckpointError when its weights are not those its record names."""
    record = read_record(run)
    if record["split"].get("shuffled_labels") is not None:
        raise CheckpointError(f"{run} is a control, trained on shuffled labels: it is not exported. Name another run.")
    path = run / WEIGHTS
    state = read_state(path)
    digest = sha256_file(path)
    if digest != record["weights_sha256"]:
        raise CheckpointError(
            f"{path} has SHA-256 {digest[:12]}…, the run's record says {record['weights_sha256'][:12]}…: the "
            "weights were changed after training. Train again, or export the file itself as a foreign checkpoint."
        )
    info = ModelInfo.from_dict({**record, "digest": digest}, str(run))
    provenance = {
        "run": run.name,
        "dataset_digest": record["data"]["digest"],
        "dataset": record["data"]["source"],
        "split": record["split"],
        "metrics": record["metrics"],
        "versions": record["versions"],
    }
    return Reference(_model(info, state, path), info, provenance, run)


def from_checkpoint(
    path: Path,
    architecture: str,
    image_size: int,
    labels: Sequence[str] = ALPHABETICAL,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Reference:
    """The model of a state dict that other code saved, also from nn.DataParallel.

    labels: class names in the order of its outputs; the default is torchvision's ImageFolder's.
    mean, std: of its input, one number a channel; ImageNet's for three channels when both are left out.

    Raises CheckpointError for a file that does not fit, InputError where the input's mean and std are not known.
    """
    state = read_state(path)
    channels = CHANNELS.get(architecture, 3)
    if not mean and not std and channels == 3:
        spec = InputSpec.imagenet(image_size)
    elif len(mean) == len(std) == channels:
        spec = InputSpec(image_size, image_size, channels, tuple(mean), tuple(std))
    else:
        raise InputError(
            f"{architecture} takes {channels} channel{'s' if channels > 1 else ''}, and --mean has {len(mean)} values, "
            f"--std {len(std)}. Give what its training normalised by, such as --mean 0.28 --std 0.33."
        )
    info = ModelInfo(architecture, sha256_file(path), tuple(labels), spec)
    return Reference(_model(info, state, path), info, {"checkpoint": path.name}, None)


def source_of(bundle: Path, source: Path | None) -> Path:
    """`source`, or the run that the bundle was made from: among those that commands without a RUN know, or beside the
    bundle. Raises CheckpointError when it is in neither place."""
    return run_of(read_manifest(bundle).model.digest, bundle) if source is None else source


def _model(info: ModelInfo, state: dict[str, torch.Tensor], where: Path) -> nn.Module:
    model = build(info.architecture)
    load_weights(model, state, where)
    return model.eval().requires_grad_(False)
