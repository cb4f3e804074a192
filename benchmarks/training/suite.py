"""Measures training throughput: the loop of `python -m train`, a plain PyTorch loop, and the arithmetic alone."""

from __future__ import annotations

import json
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stageproof.benchmarks.machine.circumstances import circumstances
from stageproof.benchmarks.training.interleaved_timing import Measured, time_interleaved
from stageproof.benchmarks.training.loops import TimedRun, forward_pass, head_stage, in_memory, plain, whole_loop
from stageproof.benchmarks.training.options import TrainingOptions
from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import FOUR_STAGES, LabelSet, named_or_listed
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.system.cpus import available_cpus
from stageproof.runtime.system.work_folders import work_folder
from stageproof.train.data.decode import safe_loader
from stageproof.train.data.phantom.__main__ import phantom_samples
from stageproof.train.data.sources.source import load_samples
from stageproof.train.engine.device import Compute, choose_compute

LOOP, PLAIN, MEMORY = "train's loop", "plain fp32 ImageFolder loop", "tensors in memory"
HEAD, FORWARD = "stage 1, ten epochs", "one forward pass"


def training(options: TrainingOptions) -> tuple[list[Measured], list[Measured], dict[str, Any]]:
    """(times of the training loops, times of stage 1 and of a forward pass, machine), times in milliseconds per image.

    The machine is described by `benchmarks.machine.circumstances.circumstances`.

    Raises InputError or DatasetError for unusable data.
    """
    compute = choose_compute(options.device, options.precision)
    torch.set_num_threads(options.threads or available_cpus())
    size, count = options.batch_size, options.steps * options.batch_size
    with work_folder() as folder:
        classes = _write_files(options, folder, count)
        spec = InputSpec.imagenet(options.image_size)
        slices, _ = safe_loader(load_samples(folder, None, classes), spec)
        loops: dict[str, TimedRun] = {
            LOOP: whole_loop(slices, len(classes), spec, size, compute),
            PLAIN: plain(folder, len(classes), spec, size, compute),
            MEMORY: in_memory(slices, len(classes), spec, size, compute),
        }
        loop = time_interleaved(loops, lambda turn: None, options.rounds, warm_up=1, what="training")
    # Random weights: they do not affect the time.
    stages = {
        HEAD: head_stage(slices, len(classes), spec, size, compute),
        FORWARD: forward_pass(slices, len(classes), spec, size, compute),
    }
    head = time_interleaved(stages, lambda turn: None, options.rounds, warm_up=1, what="stage 1")
    facts = circumstances()
    measured = [[Measured(entry.name, entry.milliseconds / count) for entry in part] for part in (loop, head)]
    if options.out:
        record = _record(list(chain.from_iterable(measured)), options, compute, facts)
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return measured[0], measured[1], facts


def _record(
    measured: list[Measured], options: TrainingOptions, compute: Compute, facts: dict[str, Any]
) -> dict[str, Any]:
    """The record with every raw sample, JSON-ready."""
    return {
        "architecture": "resnet50",
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "steps": options.steps,
        "arithmetic": compute.arithmetic,
        "device": torch.cuda.get_device_name() if compute.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "circumstances": facts,
        "milliseconds_per_image": {entry.name: entry.milliseconds.round(4).tolist() for entry in measured},
    }


def _write_files(options: TrainingOptions, folder: Path, count: int) -> LabelSet:
    """Write `count` slices, alternating between the classes, as files in class folders. The label set of the data."""
    classes = named_or_listed(options.classes) if options.classes else None
    if options.data is None:
        classes = classes or FOUR_STAGES
        samples = phantom_samples(patients=count // (6 * len(classes)) + 1, classes=classes)
    else:
        samples = load_samples(options.data, None, classes)
    if len(samples) < count:
        raise InputError(f"{samples.source} has {len(samples)} slices, expected {count} or more. Lower --steps.")
    by_class = [np.flatnonzero(samples.labels == label) for label in range(len(samples.classes))]
    alternating = (int(index) for group in zip_longest(*by_class) for index in group if index is not None)
    for index in islice(alternating, count):
        suffix = Path(samples.names[index]).suffix or ".jpg"
        target = folder / samples.classes.names[samples.labels[index]] / f"{index:06d}{suffix}"
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(samples.read(index))
    return samples.classes
