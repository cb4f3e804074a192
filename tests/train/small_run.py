"""A run of resnet34-gray at 32 × 32 whose last layer alone was fitted, to half of the people; the rest is held out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from stageproof.runtime.labels import FOUR_STAGES, LabelSet
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.data.batches import Batches
from stageproof.train.data.decode import safe_loader
from stageproof.train.data.phantom.__main__ import draw_slice
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.engine.loop import predict
from stageproof.train.metrics.classification import class_counts
from stageproof.train.metrics.validation import figures
from stageproof.train.networks import build
from stageproof.train.recipes import RECIPES
from stageproof.train.runs.directory import WEIGHTS, new_run, save_weights
from stageproof.train.runs.record import write_record

ARCHITECTURE = "resnet34-gray"
SPEC = InputSpec(32, 32, 1, (0.28,), (0.33,))


def write(folder: Path, classes: LabelSet = FOUR_STAGES, people: int = 12) -> int:
    """Write the slices to `folder`/slices and the run to `folder`/runs/small; 0, for `once`. people: of each class."""
    samples = slices_of(folder / "slices", classes, people)
    patients = np.array([int(Path(name).name[1:].partition("_")[0]) for name in samples.names])
    held = patients % 2 == 1
    slices, _ = safe_loader(samples, SPEC)
    pixels, labels = torch.from_numpy(slices.pixels), torch.from_numpy(slices.labels)
    model = _fitted(pixels, labels, held)
    logits = predict(model, Batches(pixels[held], labels[held], SPEC, 64))[0]
    with new_run(folder / "runs" / "small") as run:
        save_weights(model, run, classes.names)
        rows = zip(samples.names, samples.labels, patients, held, strict=True)
        lines = [f"{n},{classes.names[label]},{p},{'validation' if h else 'training'}" for n, label, p, h in rows]
        (run / "split.csv").write_text("\n".join(["name,label,patient,side", *lines]) + "\n", encoding="utf-8")
        metrics = figures(logits, samples.labels[held], patients[held], samples.classes)
        write_record(_record(samples, folder / "slices", metrics, sha256_file(run / WEIGHTS)), run)
    return 0


def slices_of(
    root: Path, classes: LabelSet, people: int = 12, first: int = 0, present: Collection[str] = ()
) -> Samples:
    """Three slices of 48 × 48 of each of so many people of each class, in class folders.

    first: number of people of each class to skip. present: the classes to draw; all if empty.
    """
    for at, label in enumerate(classes.names):
        if present and label not in present:
            continue
        (root / label).mkdir(parents=True)
        for patient in range(100 * at + first, 100 * at + first + people):
            for level in (0.3, 0.5, 0.7):
                pixels = draw_slice(3 * at / (len(classes) - 1), patient, level, size=48)
                Image.fromarray(pixels).save(root / label / f"p{patient:03d}_{level}.png")
    return load_samples(root, classes=classes)


def _fitted(pixels: torch.Tensor, labels: torch.Tensor, held: np.ndarray) -> nn.Module:
    """A random network whose BatchNorm knows all slices, and whose last layer was fitted to those not `held`."""
    torch.manual_seed(0)
    count = int(labels.max()) + 1
    model, head = build(ARCHITECTURE, count), nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of the one batch below
    model.fc, head = head, model.fc
    with torch.inference_mode():
        model.train()(next(iter(Batches(pixels, labels, SPEC, len(pixels)).in_order())).inputs)
    features = torch.from_numpy(predict(model, Batches(pixels, labels, SPEC, 64))[0]).double()
    seen, target = features[~held], nn.functional.one_hot(labels[~held], count).double() * 8 - 2
    middle = seen.mean(0)
    weight = torch.linalg.solve((seen - middle).T @ (seen - middle) + 30 * torch.eye(512), (seen - middle).T @ target)
    with torch.no_grad():
        head.weight.copy_(weight.T)
        head.bias.copy_(target.mean(0) - middle @ weight)
    model.fc = head
    return model


def _record(samples: Samples, data: Path, metrics: dict[str, Any], weights: str) -> dict[str, Any]:
    """The content of `run.json`. weights: SHA-256 of the weight file."""
    return {
        "architecture": ARCHITECTURE,
        "labels": list(samples.classes.names),
        **samples.classes.to_dict(),
        "input": SPEC.to_dict(),
        "temperature": 1.0,
        "start": "random weights",
        "arithmetic": "float32",
        "device": "cpu",
        "recipe": asdict(RECIPES[ARCHITECTURE](False)),
        "options": {"data": str(data), "seed": 0},
        "data": {
            "source": samples.source,
            "digest": samples.digest(),
            "slices": len(samples),
            "slices_by_class": class_counts(samples.labels, samples.classes),
            "patients": len({Path(name).name.partition("_")[0] for name in samples.names}),
            "patients_told_by": "file",
            "unreadable": 0,
        },
        "split": {"by": "patient", "fold": "1/2", "seed": 0, "leaked": 0.0},
        "metrics": metrics,
        "versions": {},
        "weights_sha256": weights,
    }
