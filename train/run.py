"""One training run, from options to run directory."""

from __future__ import annotations

import json
import platform
import sys
import time
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from runtime import __version__
from runtime.labels import LABELS
from runtime.manifest import sha256_file
from runtime.preprocess import InputSpec
from runtime.threads import available_cpus
from train.checkpoint import RUNS, WEIGHTS, new_run, save_weights, write_record
from train.compute import Compute, choose_compute
from train.data.batches import Batches
from train.data.prepare import Prepared, prepare
from train.evaluation.metrics import figures
from train.loop import Epoch, predict, run_stage
from train.models import build
from train.options import Options
from train.progress import Watch
from train.weights import initialise


def train(options: Options) -> tuple[Path, dict[str, Any]]:
    """The run directory and the content of its `run.json`.

    Raises InputError, DatasetError or CheckpointError for what cannot be used, TrainingError when training fails.
    """
    recipe, (fold, folds) = options.settings, options.fold_of
    torch.manual_seed(options.seed)
    torch.set_num_threads(available_cpus())
    compute = choose_compute(options.device, options.precision)
    spec = InputSpec.imagenet(recipe.image_size)
    out = options.out or RUNS / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{recipe.name}"
    with new_run(out) as folder, Watch() as watch:
        data = prepare(
            options.data,
            spec,
            max_unreadable=options.max_unreadable,
            split=options.split,
            fold=fold,
            folds=folds,
            seed=options.seed,
        )
        data.write(folder)
        model = build(recipe.architecture)
        start = initialise(model, options.weights)
        model.to(compute.device).to(memory_format=torch.channels_last)
        _announce(options, data, start, compute, watch)
        logits, labels = _run_stages(options, model, data, spec, compute, watch, folder)
        save_weights(model, folder)
        groups = data.groups[data.split.validation]
        record = {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "architecture": recipe.architecture,
            "labels": list(LABELS),
            "input": spec.to_dict(),
            "temperature": 1.0,
            "weights_sha256": sha256_file(folder / WEIGHTS),
            "recipe": asdict(recipe),
            "options": _plain(options),
            "start": start,
            "arithmetic": compute.arithmetic,
            "device": str(compute.device),
            "data": data.facts(),
            "split": {"by": options.split, "fold": options.fold, "seed": options.seed, "leaked": data.split.leaked},
            "metrics": figures(logits, labels, groups),
            "versions": _versions(),
        }
        write_record(record, folder)
    return out, record


def _run_stages(
    options: Options,
    model: nn.Module,
    data: Prepared,
    spec: InputSpec,
    compute: Compute,
    watch: Watch,
    folder: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Train both stages, a line of metrics.jsonl an epoch; float32 logits and labels of the validation slices."""
    recipe, device = options.settings, compute.device
    pixels, labels = torch.from_numpy(data.slices.pixels), torch.from_numpy(data.slices.labels)
    chosen, held = torch.from_numpy(data.split.training), torch.from_numpy(data.split.validation)
    training_slices = (pixels[chosen], labels[chosen], spec, recipe.batch_size)
    validation = Batches(pixels[held], labels[held], spec, recipe.batch_size, device=device)
    generator = torch.Generator().manual_seed(options.seed)

    def record(epoch: Epoch) -> None:
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")
        watch.epoch(epoch)

    for name, stage in (("head", recipe.head), ("full", recipe.full)):
        training = Batches(*training_slices, generator=generator, augment=stage.augment, device=device)
        watch.begin(name, stage.epochs, len(training))
        run_stage(
            name,
            stage,
            model,
            training,
            validation,
            frozen_backbone=name == "head",
            weight_decay=recipe.weight_decay,
            clip_norm=recipe.clip_norm,
            amp=compute.amp,
            on_step=watch.step,
            on_epoch=record,
        )
    return predict(model, validation)


def _announce(options: Options, data: Prepared, start: str, compute: Compute, watch: Watch) -> None:
    facts, recipe = data.facts(), options.settings
    watch.say(
        f"{facts['slices']} slices of {facts['patients']} patients (told apart by {data.told_by}) from {data.source}"
        + (f"; {len(data.unreadable)} unreadable files left out" if data.unreadable else "")
    )
    watch.say(
        f"recipe {recipe.name}: {start}, {recipe.image_size}×{recipe.image_size}, {compute.arithmetic} on "
        f"{compute.device}, {len(data.split.training)} slices to train on, {len(data.split.validation)} to validate"
    )
    if data.split.leaked:
        watch.say(f"LEAKAGE: {data.split.leaked:.0%} of the validation slices show a patient who is in training too.")


def _plain(options: Options) -> dict[str, Any]:
    """The options apart from the recipe; JSON-ready."""
    plain = {name: value for name, value in vars(options).items() if name != "settings"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "numpy", "pillow", "safetensors")
    return {
        "neurostage": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        **{package: version(package) for package in packages},
    }
