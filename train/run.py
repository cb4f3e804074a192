"""One training run from options to run directory."""

from __future__ import annotations

import csv
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime import __version__
from runtime.errors import InputError
from runtime.labels import LABELS
from runtime.manifest import sha256_file
from runtime.preprocess import InputSpec
from runtime.threads import available_cpus
from train.checkpoint import RUNS, WEIGHTS, new_run, save_weights, write_record
from train.data.batches import Batches
from train.data.loader import Slices, safe_loader
from train.data.patients import link_by_pixels
from train.data.phantom import phantom_samples
from train.data.samples import Samples
from train.data.sources import load_samples
from train.data.splits import Split, split_slices
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
    device = _device(options.device)
    amp = _amp(options.precision, device)
    spec = InputSpec.imagenet(recipe.image_size)
    out = options.out or RUNS / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{recipe.name}"
    with new_run(out) as folder, Watch() as watch:
        samples = load_samples(options.data) if options.data else phantom_samples(seed=options.seed)
        slices, unreadable = safe_loader(samples, spec, options.max_unreadable)
        grouped_by = "source" if slices.groups is not None else "pixels"
        groups = link_by_pixels(slices.pixels) if slices.groups is None else slices.groups
        slices = slices.with_groups(groups)
        split = split_slices(slices.labels, groups, by=options.split, folds=folds, fold=fold, seed=options.seed)
        model = build(recipe.architecture)
        start = initialise(model, options.weights)
        model.to(device, memory_format=torch.channels_last)
        watch.say(
            f"{len(slices)} slices of {len(np.unique(groups))} patients (told by {grouped_by}) from {samples.source}"
            + (f", {len(unreadable)} unreadable left out" if unreadable else "")
        )
        watch.say(
            f"recipe {recipe.name}, {start}, {recipe.image_size}×{recipe.image_size}, "
            f"{'fp32' if amp is None else str(amp).removeprefix('torch.')} on {device}; "
            f"{len(split.training)} slices to train on, {len(split.validation)} for validation"
        )
        epochs: list[Epoch] = []
        logits, labels = _stages(options, model, slices, split, spec, device, amp, watch, epochs, folder)
        save_weights(model, folder)
        _write_split(slices, split, folder)
        (folder / "unreadable.json").write_text(json.dumps([asdict(item) for item in unreadable], indent=2) + "\n")
        record = {
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "architecture": recipe.architecture,
            "labels": list(LABELS),
            "input": spec.to_dict(),
            "temperature": 1.0,
            "weights_sha256": sha256_file(folder / WEIGHTS),
            "recipe": asdict(recipe),
            "options": _options(options),
            "start": start,
            "arithmetic": "float32" if amp is None else str(amp).removeprefix("torch."),
            "device": str(device),
            "data": _data(samples, slices, grouped_by, len(unreadable), options.data),
            "split": {"by": options.split, "fold": options.fold, "seed": options.seed, "leaked": split.leaked},
            "metrics": {**figures(logits, labels, groups[split.validation]), "leaked": split.leaked},
            "versions": _versions(),
        }
        write_record(record, folder)
    return out, record


def _stages(
    options: Options,
    model: torch.nn.Module,
    slices: Slices,
    split: Split,
    spec: InputSpec,
    device: torch.device,
    amp: torch.dtype | None,
    watch: Watch,
    epochs: list[Epoch],
    folder: Path,
) -> tuple[np.ndarray, np.ndarray]:
    """Train both stages, a line of metrics.jsonl an epoch; float32 logits and labels of the validation slices."""
    recipe = options.settings
    pixels, labels = torch.from_numpy(slices.pixels), torch.from_numpy(slices.labels)
    generator = torch.Generator().manual_seed(options.seed)
    chosen, held = torch.from_numpy(split.training), torch.from_numpy(split.validation)
    validation = Batches(pixels[held], labels[held], spec, recipe.batch_size, device=device)

    def record(epoch: Epoch) -> None:
        epochs.append(epoch)
        with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")
        watch.epoch(epoch)

    for name, stage in (("head", recipe.head), ("full", recipe.full)):
        training = Batches(
            pixels[chosen],
            labels[chosen],
            spec,
            recipe.batch_size,
            generator=generator,
            augment=stage.augment,
            device=device,
        )
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
            amp=amp,
            on_step=watch.step,
            on_epoch=record,
        )
    return predict(model, validation)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda was asked for and torch sees no CUDA device. Use --device cpu.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _amp(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype for autocast; None computes in float32."""
    if precision == "auto":
        if device.type == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            # Autocast on a CPU without bf16 units is slower than float32.
            cpu = getattr(torch.cpu, "get_capabilities", dict)()
            precision = "bf16" if cpu.get("avx512_bf16") or cpu.get("amx_bf16") else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _write_split(slices: Slices, split: Split, folder: Path) -> None:
    assert slices.groups is not None
    side = np.full(len(slices), "", dtype=object)
    side[split.training], side[split.validation] = "training", "validation"
    with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "label", "patient", "side"])
        for name, label, group, where in zip(slices.names, slices.labels, slices.groups, side, strict=True):
            writer.writerow([name, LABELS[label], int(group), where])


def _data(samples: Samples, slices: Slices, grouped_by: str, unreadable: int, path: Path | None) -> dict[str, Any]:
    counts = np.bincount(slices.labels, minlength=len(LABELS)).tolist()
    return {
        "source": samples.source,
        "path": None if path is None else str(path),
        "digest": samples.digest(),
        "slices": len(slices),
        "slices_by_class": dict(zip(LABELS, counts, strict=True)),
        "patients": len(np.unique(slices.groups)),
        "patients_told_by": grouped_by,
        "unreadable": unreadable,
    }


def _options(options: Options) -> dict[str, Any]:
    plain = {name: value for name, value in vars(options).items() if name != "settings"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


def _versions(packages: Sequence[str] = ("torch", "torchvision", "numpy", "pillow", "safetensors")) -> dict[str, str]:
    return {
        "neurostage": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        **{package: version(package) for package in packages},
    }
