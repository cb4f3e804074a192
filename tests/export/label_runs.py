"""Runs of a network with 500 weights, over phantoms in class folders, with any label set and order of outputs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file

from stageproof.runtime.labels import LabelSet, label_set
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.data.phantom.__main__ import phantom_samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.runs.record import write_record
from tests import tiny

GRADES = label_set(["Grad 0", "Größe ≥ 1.5", "重度 & <rest>"], ["重度 & <rest>"])
"""Three classes that belong to no built-in label set, with signs of XML and letters beyond ASCII."""


def write_folders(root: Path, classes: LabelSet, people: int = 12, slices: int = 3, only: Sequence[str] = ()) -> Path:
    """CLASS/pNNN_sM.png with phantoms of 32 × 32. only: the classes that are written; all if ()."""
    samples = phantom_samples(patients=people, slices=slices, size=32, seed=11, classes=classes)
    for index, name in enumerate(samples.names):
        label = classes.names[samples.labels[index]]
        if label in (only or classes.names):
            path = root / label / Path(name).name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(samples.read(index))
    return root


def order_of(classes: LabelSet) -> tuple[str, ...]:
    """An order of outputs in which no class is at its clinical place, nor at that of its name in the alphabet."""
    first, *rest = sorted(classes.names)
    order = (*rest, first)
    return order if order != classes.names else tuple(reversed(order))


def resnet18(samples: Any) -> Any:
    """A random ResNet18 whose BatchNorm has the statistics of the samples."""
    import torch
    from torch import nn

    from stageproof.export.data.comparison import preprocessed
    from stageproof.train.networks import build

    torch.manual_seed(0)
    model = build("resnet18", len(samples.classes), image_size=tiny.SIZE)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of the one batch below
    with torch.inference_mode():
        model.train()(torch.from_numpy(preprocessed(samples, InputSpec.imagenet(tiny.SIZE))))
    return model


def write_run(run: Path, classes: LabelSet, data: Path | None, architecture: str = tiny.NAME, people: int = 24) -> Path:
    """A run directory whose network is fitted to all slices at `data` (None: to the phantoms of a run without data, of
    which the first `people` patients of each class are used), its outputs in the order of `order_of`; every fourth
    patient of each class is on the validation side. architecture: that of `tests.tiny`, or resnet18."""
    samples = phantom_samples(people, size=32, classes=classes) if data is None else load_samples(data, None, classes)
    network = tiny.fitted(samples, resnet18(samples) if architecture == "resnet18" else None)
    order = order_of(classes)
    place = [classes.names.index(name) for name in order]
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    state |= {name: state[name][place].contiguous() for name in ("fc.weight", "fc.bias")}
    run.mkdir(parents=True)
    save_file(state, run / "model.safetensors")
    patients = [Path(name).name.split("_")[0] for name in samples.names]
    held = {person for person in patients if int(person[1:]) // len(classes) % 4 == 0}
    rows = [
        f'"{name}","{classes.names[label]}",{person},{"validation" if person in held else "training"}'
        for name, label, person in zip(samples.names, samples.labels, patients, strict=True)
    ]
    (run / "split.csv").write_text("\n".join(["name,label,patient,side", *rows]) + "\n", encoding="utf-8")
    record = {
        "created": "2026-01-01T00:00:00Z",
        "architecture": architecture,
        "labels": list(order),
        **classes.to_dict(),
        "input": InputSpec.imagenet(tiny.SIZE).to_dict(),
        "temperature": 1.0,
        "weights_sha256": sha256_file(run / "model.safetensors"),
        "options": {"data": None if data is None else str(data), "seed": 0},
        "data": {"digest": samples.digest(), "source": samples.source},
        "split": {"by": "patient"},
        "metrics": {},
        "versions": {},
    }
    write_record(record, run)
    return run


def held_out(run: Path) -> dict[Path, str]:
    """Image → class folder, of the validation side, read without the code under test."""
    import csv

    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    with (run / "split.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["side"] == "validation"]
    return {Path(record["options"]["data"]) / row["name"]: Path(row["name"]).parts[0] for row in rows}


def shares(predicted: Sequence[str | None], true: Sequence[str]) -> dict[str, float]:
    """Class → share of its images that are predicted as that class."""
    pairs = list(zip(predicted, true, strict=True))
    return {
        name: float(np.mean([one == name for one, other in pairs if other == name])) for name in dict.fromkeys(true)
    }
