"""Loads the reference of an export: the float32 PyTorch model of a run directory or a foreign checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stageproof.runtime.bundle.manifest import ModelInfo, read_manifest
from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.foreign.class_order import ClassOrder
from stageproof.train.foreign.stated_order import stated
from stageproof.train.foreign.weight_files import (
    read_contents,
    read_weights,
    same_tensors,
    sole_state,
    without_prefix,
)
from stageproof.train.networks import construct
from stageproof.train.runs.directory import WEIGHTS, load_weights
from stageproof.train.runs.finding import finished_runs, run_of, run_of_file
from stageproof.train.runs.pseudonyms import public_run, public_source
from stageproof.train.runs.record import RECORD, read_record
from stageproof.train.terminal.bars import bar


@dataclass(frozen=True)
class Reference:
    """The model that every artifact is compared with, and its origin."""

    model: nn.Module
    """float32, eval mode, on the CPU, not compiled."""
    info: ModelInfo
    provenance: dict[str, Any]
    run: Path | None
    """The run directory; None for a foreign checkpoint."""
    order: ClassOrder
    """Class order and its origin."""
    graph: Path | None = None
    """The ONNX or TorchScript file that is the reference; None for a network in PyTorch."""

    def logits(self, images: np.ndarray, batch_size: int = 16) -> np.ndarray:
        """(N, classes) float32 logits. images: (N, C, H, W) float32."""
        parts = []
        with torch.inference_mode(), bar("float32 reference", len(images)) as advance:
            for part in np.array_split(images, -(-len(images) // batch_size)):
                parts.append(self.model(torch.from_numpy(part)))
                advance(len(part))
        return torch.cat(parts).numpy()


def from_run(run: Path) -> Reference:
    """The model of a run directory. Raises CheckpointError if its weights differ from those in its record."""
    record = read_record(run)
    if record["split"].get("shuffled_labels") is not None:
        raise CheckpointError(f"{run} is a control, trained on shuffled labels: it is not exported. Name another run.")
    path = run / WEIGHTS
    weights = read_weights(path)
    digest = sha256_file(path)
    if digest != record["weights_sha256"]:
        raise CheckpointError(
            f"{path} has SHA-256 {digest[:12]}…, expected {record['weights_sha256'][:12]}… from the run's record: the "
            "weights were changed after training. Train again, or export the file itself as a foreign checkpoint."
        )
    info = ModelInfo.from_dict({**record, "digest": digest}, str(run))
    provenance = {
        "run": public_run(run.name, digest),
        "dataset_digest": record["data"]["digest"],
        "dataset": public_source(record["data"]["source"]),
        "split": record["split"],
        "metrics": record["metrics"],
        "versions": record["versions"],
        **({"hub": record["hub"]} if "hub" in record else {}),  # where `train.hub.fetch` downloaded the run from
    }
    for one in stated(weights.beside, WEIGHTS):
        if one.within(info.classes) != info.labels:
            raise CheckpointError(
                f"{run / RECORD} has the classes {', '.join(info.labels)}, the weights beside it {one}. One of them "
                "was changed after training. Train again, or copy the run again."
            )
    order = ClassOrder(info.labels, "run", f"from {run / RECORD}", info.classes)
    return Reference(_model(info, weights.state, path), info, provenance, run, order)


def run_of_weights(path: Path) -> Path | None:
    """The run with the same weights as the file: the file's own run, or one of `train.runs.finding.finished_runs`; None
    if there is none. Weights saved again, with a prefix such as ``module.``, or under a key, are recognised.
    """
    if not path.is_file():
        return None
    if run := run_of_file(path):
        return run
    folders = [path.parent, *reversed(finished_runs())]
    files = [folder / WEIGHTS for folder in folders if (folder / RECORD).is_file() and (folder / WEIGHTS).is_file()]
    files = [file for file in files if file.resolve() != path.resolve()]
    if not files:
        return None
    state = sole_state(read_contents(path)) or {}
    return next(
        (file.parent for file in files for one in (state, without_prefix(state)) if same_tensors(one, file)), None
    )


def source_of(bundle: Path, source: Path | None) -> Path:
    """`source`, or, if None, the run that the bundle was made from, searched in the default runs folder and beside the
    bundle. Raises CheckpointError if it is not found."""
    return run_of(read_manifest(bundle).model.digest, bundle) if source is None else source


def _model(info: ModelInfo, state: dict[str, torch.Tensor], where: Path) -> nn.Module:
    model = construct(info.network)
    load_weights(model, state, where)
    return model.eval().requires_grad_(False)
