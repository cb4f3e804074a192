"""One thread for networks too small for two: threads that wait for each other would take most of the time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for subprocesses
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def few_slices(tmp_path_factory) -> Path:
    """Class folders of 4 × 10 phantom slices of 32 × 32, each of another person, as their groups.csv says."""
    from stageproof.runtime.labels import LABELS
    from stageproof.train.data.phantom.__main__ import draw_slice

    root = tmp_path_factory.mktemp("few") / "data"
    for stage, label in enumerate(LABELS):
        (root / label).mkdir(parents=True)
        for patient in range(10):
            pixels: np.ndarray = draw_slice(stage, 100 * stage + patient, 0.5, size=32)
            Image.fromarray(pixels).save(root / label / f"{patient}.png")
    rows = [
        f"{label}/{patient}.png,{10 * stage + patient}" for stage, label in enumerate(LABELS) for patient in range(10)
    ]
    (root / "groups.csv").write_text("\n".join(["file,patient", *rows]) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def small_run(tmp_path_factory) -> Path:
    """A run of resnet34-gray at 32 × 32 whose last layer alone was fitted: 24 people trained on, 24 held out."""
    import torch
    from torch import nn

    from stageproof.runtime.labels import LABELS
    from stageproof.runtime.preprocess import InputSpec
    from stageproof.runtime.serialization.digests import sha256_file
    from stageproof.train.data.batches import Batches
    from stageproof.train.data.decode import safe_loader
    from stageproof.train.data.phantom.__main__ import draw_slice
    from stageproof.train.data.sources.source import load_samples
    from stageproof.train.engine.loop import predict
    from stageproof.train.metrics.classification import class_counts
    from stageproof.train.metrics.validation import figures
    from stageproof.train.models import build
    from stageproof.train.recipes import RECIPES
    from stageproof.train.runs.directory import WEIGHTS, new_run, save_weights
    from stageproof.train.runs.record import write_record

    folder = tmp_path_factory.mktemp("small")
    for stage, label in enumerate(LABELS):
        (folder / "slices" / label).mkdir(parents=True)
        for patient, level in ((patient, level) for patient in range(12) for level in (0.3, 0.5, 0.7)):
            pixels = draw_slice(stage, 100 * stage + patient, level, size=48)
            Image.fromarray(pixels).save(folder / "slices" / label / f"p{100 * stage + patient:03d}_{level}.png")
    samples = load_samples(folder / "slices")
    patients = np.array([int(Path(name).name[1:4]) for name in samples.names])
    held = patients % 2 == 1
    spec = InputSpec(32, 32, 1, (0.28,), (0.33,))
    slices, _ = safe_loader(samples, spec)
    pixels, labels = torch.from_numpy(slices.pixels), torch.from_numpy(slices.labels)
    torch.manual_seed(0)
    model, head = build("resnet34-gray"), nn.Identity()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of the one batch below
    model.fc, head = head, model.fc
    with torch.inference_mode():
        model.train()(next(iter(Batches(pixels, labels, spec, len(samples)).in_order())).inputs)
    features = torch.from_numpy(predict(model, Batches(pixels, labels, spec, 64))[0]).double()
    seen, target = features[~held], nn.functional.one_hot(labels[~held], 4).double() * 8 - 2
    middle = seen.mean(0)
    weight = torch.linalg.solve((seen - middle).T @ (seen - middle) + 30 * torch.eye(512), (seen - middle).T @ target)
    with torch.no_grad():
        head.weight.copy_(weight.T)
        head.bias.copy_(target.mean(0) - middle @ weight)
    model.fc = head
    logits = predict(model, Batches(pixels[held], labels[held], spec, 64))[0]
    run = folder / "runs" / "small"
    with new_run(run) as place:
        save_weights(model, place)
        rows = zip(samples.names, samples.labels, patients, held, strict=True)
        lines = [f"{n},{LABELS[label]},{p},{'validation' if h else 'training'}" for n, label, p, h in rows]
        (place / "split.csv").write_text("\n".join(["name,label,patient,side", *lines]) + "\n", encoding="utf-8")
        write_record(
            {
                "architecture": "resnet34-gray",
                "labels": list(LABELS),
                "input": spec.to_dict(),
                "temperature": 1.0,
                "start": "random weights",
                "arithmetic": "float32",
                "device": "cpu",
                "recipe": asdict(RECIPES["resnet34-gray"](False)),
                "options": {"data": str(folder / "slices"), "seed": 0},
                "data": {
                    "source": samples.source,
                    "digest": samples.digest(),
                    "slices": len(samples),
                    "slices_by_class": class_counts(samples.labels),
                    "patients": 48,
                    "patients_told_by": "file",
                    "unreadable": 0,
                },
                "split": {"by": "patient", "fold": "1/2", "seed": 0, "leaked": 0.0},
                "metrics": figures(logits, samples.labels[held], patients[held]),
                "versions": {},
                "weights_sha256": sha256_file(place / WEIGHTS),
            },
            place,
        )
    return run


@pytest.fixture(scope="session")
def evaluated(small_run, tmp_path_factory) -> Path:
    """`small_run` after `python -m train.evaluate`. Do not change it: copy it."""
    from stageproof.train.evaluate.__main__ import main

    run = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("evaluated") / "small", copy_function=os.link))
    assert main([str(run), "--target-risk", "0.8", "--resamples", "400"]) == 0
    return run
