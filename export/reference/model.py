"""Loads the reference of an export: the float32 PyTorch model of a run directory or a foreign checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stageproof.runtime.bundle.manifest import FILE, ModelInfo, read_manifest
from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, LABELS
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.foreign.class_order import ClassOrder, decide, given_labels
from stageproof.train.foreign.side_files import beside
from stageproof.train.foreign.stated_order import hints, stated
from stageproof.train.foreign.weight_files import Weights, outputs, read_state, read_weights, same_tensors
from stageproof.train.models import CHANNELS, build
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
        if one.labels != info.labels:
            raise CheckpointError(
                f"{run / RECORD} has the classes {', '.join(info.labels)}, the weights beside it {one}. One of them "
                "was changed after training. Train again, or copy the run again."
            )
    order = ClassOrder(info.labels, "run", f"from {run / RECORD}")
    return Reference(_model(info, weights.state, path), info, provenance, run, order)


def from_checkpoint(
    path: Path,
    architecture: str,
    image_size: int,
    labels: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    bundle: Path | None = None,
) -> Reference:
    """The model of a state dict saved by other code, also from nn.DataParallel.

    labels: class names in output order, from the user; if (), they are read from the file or from files beside it, or
        assumed alphabetical.
    mean, std: input normalisation, one number per channel; if both are (), ImageNet's for three channels.
    bundle: a bundle made from this checkpoint, whose class order replaces `labels`.

    Raises CheckpointError for a file that does not fit or contradicts itself; InputError if it contradicts the
    arguments, or if its normalisation is unknown.
    """
    weights = read_weights(path)
    order = _order(path, weights, labels, bundle)
    channels = CHANNELS.get(architecture, 3)
    if not mean and not std and channels == 3:
        spec = InputSpec.imagenet(image_size)
    elif len(mean) == len(std) == channels:
        spec = InputSpec(image_size, image_size, channels, tuple(mean), tuple(std))
    else:
        raise InputError(
            f"{architecture} takes {channels} channel{'s' if channels > 1 else ''}, but --mean has {len(mean)} values "
            f"and --std {len(std)}. Give the normalisation used in training, such as --mean 0.28 --std 0.33."
        )
    info = ModelInfo(architecture, sha256_file(path), order.labels, spec)
    return Reference(
        _model(info, weights.state, path), info, {"checkpoint": f"checkpoint-{info.digest[:12]}"}, None, order
    )


def _order(path: Path, weights: Weights, labels: Sequence[str], bundle: Path | None) -> ClassOrder:
    """The class order of a foreign checkpoint."""
    statements = [*stated(weights.beside, path.name), *beside(path)]
    if bundle is not None:
        manifest = read_manifest(bundle)
        order = decide(statements, manifest.model.labels, path.name, option=str(bundle / FILE))
        return ClassOrder(order.labels, manifest.labels_from, f"from {bundle / FILE}")
    order = decide(statements, given_labels(labels), path.name, outputs(weights.state) or len(LABELS))
    if order.origin == ASSUMED and (why := _against_assuming(path, weights)):
        raise CheckpointError(f"{path} does not state the order of its classes, and {why} Give it with --labels.")
    return order


def _against_assuming(path: Path, weights: Weights) -> str | None:
    """Evidence against an alphabetical class order, in a sentence; None if there is none."""
    for hint in hints(weights.beside, path.name):
        if hint.labels != ALPHABETICAL:
            return f"it may not be alphabetical: {hint}."
    if path.parent.name.endswith(".partial"):
        return "it is the checkpoint of a run that is not finished. Finish the run with --resume, and export that."
    with suppress(CheckpointError):  # another program's run.json
        recorded = ", ".join(read_record(path.parent)["labels"])
        return (
            f"{path.parent / RECORD} beside it is of other weights; whether they have its order, {recorded}, is open."
        )
    return None


def run_of_weights(path: Path) -> Path | None:
    """The run with the same weights as the file: the file's own run, or one of `train.runs.finding.finished_runs`; None
    if there is none. Weights saved again, or with a ``module.`` prefix, are recognised.
    """
    if not path.is_file():
        return None
    if run := run_of_file(path):
        return run
    folders = [path.parent, *reversed(finished_runs())]
    files = [folder / WEIGHTS for folder in folders if (folder / RECORD).is_file() and (folder / WEIGHTS).is_file()]
    files = [file for file in files if file.resolve() != path.resolve()]
    state = read_state(path) if files else {}
    return next((file.parent for file in files if same_tensors(state, file)), None)


def source_of(bundle: Path, source: Path | None) -> Path:
    """`source`, or, if None, the run that the bundle was made from, searched in the default runs folder and beside the
    bundle. Raises CheckpointError if it is not found."""
    return run_of(read_manifest(bundle).model.digest, bundle) if source is None else source


def _model(info: ModelInfo, state: dict[str, torch.Tensor], where: Path) -> nn.Module:
    model = build(info.architecture)
    load_weights(model, state, where)
    return model.eval().requires_grad_(False)
