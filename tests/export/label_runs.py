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


def write_run(run: Path, classes: LabelSet, data: Path | None, **options: Any) -> Path:
    """A run directory whose network is fitted to all slices at `data` (None: to the phantoms of a run without data),
    its outputs in the order of `order_of`; every fourth patient is on the validation side."""
    samples = phantom_samples(size=32, seed=0, classes=classes) if data is None else load_samples(data, None, classes)
    network, order = tiny.fitted(samples), order_of(classes)
    place = [classes.names.index(name) for name in order]
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    state |= {name: state[name][place].contiguous() for name in ("fc.weight", "fc.bias")}
    run.mkdir(parents=True)
    save_file(state, run / "model.safetensors")
    people = [Path(name).name.split("_")[0] for name in samples.names]
    held = set(sorted(set(people))[::4])
    rows = [
        f'"{name}","{classes.names[label]}",{person},{"validation" if person in held else "training"}'
        for name, label, person in zip(samples.names, samples.labels, people, strict=True)
    ]
    (run / "split.csv").write_text("\n".join(["name,label,patient,side", *rows]) + "\n", encoding="utf-8")
    record = {
        "created": "2026-01-01T00:00:00Z",
        "architecture": tiny.NAME,
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
