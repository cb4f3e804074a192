"""What is exported: the eager float32 model from a run directory or a foreign checkpoint."""

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


@dataclass(frozen=True)
class Reference:
    """The model every artifact is compared with, and where it came from."""

    model: nn.Module
    """Eager, float32, eval mode, on the CPU."""
    info: ModelInfo
    provenance: dict[str, Any]
    run: Path | None
    """The run directory; None for a foreign checkpoint."""
    order: ClassOrder
    """Of the classes, and who says so."""

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
    weights = read_weights(path)
    digest = sha256_file(path)
    if digest != record["weights_sha256"]:
        raise CheckpointError(
            f"{path} has SHA-256 {digest[:12]}…, the run's record says {record['weights_sha256'][:12]}…: the "
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
    """The model of a state dict that other code saved, also from nn.DataParallel.

    labels: class names in the order of its outputs, as the user gives them; () reads them from the file or what lies
        beside it, and takes them for alphabetical where neither says anything.
    mean, std: of its input, one number a channel; ImageNet's for three channels when both are left out.
    bundle: one that was made of it, whose order is used in place of `labels`.

    Raises CheckpointError for a file that does not fit or contradicts itself, InputError where it contradicts what was
    given or its input's mean and std are not known.
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
            f"{architecture} takes {channels} channel{'s' if channels > 1 else ''}, and --mean has {len(mean)} values, "
            f"--std {len(std)}. Give what its training normalised by, such as --mean 0.28 --std 0.33."
        )
    info = ModelInfo(architecture, sha256_file(path), order.labels, spec)
    return Reference(
        _model(info, weights.state, path), info, {"checkpoint": f"checkpoint-{info.digest[:12]}"}, None, order
    )


def _order(path: Path, weights: Weights, labels: Sequence[str], bundle: Path | None) -> ClassOrder:
    """The order of the classes of a checkpoint that is no run's weights."""
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
    """What speaks against an alphabetical order although it is no statement of the order."""
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
    """The run whose weights are in the file, as it was written or saved again, also with ``module.`` before its names:
    the run beside the file, or one that `train.runs.finding.finished_runs` knows. None where there is none.
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
    """`source`, or the run that the bundle was made from: among those that commands without a RUN know, or beside the
    bundle. Raises CheckpointError when it is in neither place."""
    return run_of(read_manifest(bundle).model.digest, bundle) if source is None else source


def _model(info: ModelInfo, state: dict[str, torch.Tensor], where: Path) -> nn.Module:
    model = build(info.architecture)
    load_weights(model, state, where)
    return model.eval().requires_grad_(False)
