"""`train`: performs one training run, from the options to the finished run directory."""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stageproof.runtime import __version__
from stageproof.runtime.bundle.manifest import sha256_file
from stageproof.runtime.errors import InputError, TrainingError
from stageproof.runtime.labels import FOUR_STAGES
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.system.cpus import available_cpus
from stageproof.train.cards.run_index import INDEX, index_page, linked
from stageproof.train.config.options import Options
from stageproof.train.config.saved_options import write_options
from stageproof.train.data.batches import channel_statistics
from stageproof.train.data.cache import prepare_once
from stageproof.train.data.dataset import Prepared, prepare
from stageproof.train.data.unknown import at_least
from stageproof.train.distributed.process_group import ProcessGroup, join
from stageproof.train.engine.device import Compute, choose_compute
from stageproof.train.engine.energy import EnergyMeter
from stageproof.train.engine.progress import ProgressBar
from stageproof.train.engine.session import Session
from stageproof.train.engine.signals import StopRequest
from stageproof.train.finished import continued
from stageproof.train.metrics.validation import figures
from stageproof.train.recipes import RECIPES
from stageproof.train.reports.charts.training import plot_confusion, plot_curves
from stageproof.train.runs.checkpoints import read_checkpoint
from stageproof.train.runs.directory import WEIGHTS, new_run, save_weights
from stageproof.train.runs.initial_weights import check_start
from stageproof.train.runs.record import now, write_record
from stageproof.train.runs.split_file import check_split
from stageproof.train.runs.unfinished import RUNS, finished_name, has_checkpoint, partial_folder

logger = logging.getLogger(__name__)


def train(options: Options) -> tuple[Path, dict[str, Any]]:
    """The run directory and the content of its `run.json`; every process of a distributed run returns them.

    Raises InputError, DatasetError or CheckpointError for invalid input, TrainingError when training fails, and
    `train.engine.loop.Interrupted` after SIGTERM or SIGINT, once a checkpoint is written.
    """
    compute = choose_compute(options.device, options.precision)
    with join(compute.device.type) as processes:
        if compute.device.type == "cuda":
            compute = replace(compute, device=torch.device("cuda", processes.local_rank))
        torch.set_num_threads(_threads(processes))
        out = processes.broadcast(options.out or default_out(options))
        run = new_run(out, options.resume) if processes.leader else nullcontext(partial_folder(out))
        with run as folder, ProgressBar(quiet=not processes.leader) as progress:
            record = _train(options, compute, processes, folder, progress)
        processes.barrier()  # no process returns before the run directory has its final name
    return out, record


def _threads(processes: ProcessGroup) -> int:
    """Threads of this process: OMP_NUM_THREADS, else its share of the CPUs available to the run on this machine."""
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return int(setting) if setting.isdigit() and int(setting) else max(1, available_cpus() // processes.local_size)


def default_out(options: Options) -> Path:
    """The run directory when --out is not given: runs/TIME-RECIPE, with the architecture if the recipe has another."""
    recipe = options.settings
    usual = RECIPES[recipe.name](False).architecture if recipe.name in RECIPES else recipe.architecture
    network = "" if recipe.architecture == usual else f"-{recipe.architecture}"
    return RUNS / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{recipe.name}{network}"


def _train(
    options: Options, compute: Compute, processes: ProcessGroup, folder: Path, progress: ProgressBar
) -> dict[str, Any]:
    checkpoint = read_checkpoint(folder) if options.resume and processes.leader and has_checkpoint(folder) else None
    if processes.leader:
        if checkpoint is None and options.extends is None:
            given = options.label_set
            check_start(options.weights, options.settings.network(len(given or FOUR_STAGES)), given)
        options, checkpoint = continued(options, folder, checkpoint)
        write_options(options, folder)
    options, checkpoint = processes.broadcast((options, checkpoint))
    data = _prepare(options, processes)
    if options.settings.keep == "patient_accuracy" and data.who.unit != "patients":
        raise InputError(
            f"--keep patient_accuracy needs known patients: {data.who.sentence()}. Choose another --keep, such as loss."
        )
    spec = _input_spec(options, data)
    session = Session(options.settings, compute, processes, spec, data, folder if processes.leader else None, progress)
    start = session.initialise(options.weights, options.seed, checkpoint)
    if processes.leader:
        if checkpoint is not None:
            before = folder if has_checkpoint(folder) or options.extends is None else options.extends
            check_split(before, data.slices.names, data.sides().tolist(), data.source)
        data.write(folder)
        _announce(options, finished_name(folder), data, start, compute, processes)
        parameters = sum(tensor.numel() for tensor in session.model.parameters())
        network = session.network
        logger.info(
            f"network {network.architecture}, {network.head} head, {network.channels} input "
            f"channel{'s' if network.channels > 1 else ''}, {parameters / 1e6:.1f} million parameters"
        )
    meter = EnergyMeter(options.country) if options.energy and processes.leader else None
    with StopRequest() as stop:
        logits, labels = session.run(
            stop,
            seed=options.seed,
            minutes=options.checkpoint_minutes,
            compile_model=options.compile,
            tensorboard=options.tensorboard,
        )
    record = _record(options, session, start, logits, labels)
    if meter:
        record["energy"] = meter.stop()
    if processes.leader:
        _write(session, record, logits, labels, folder)
    return record


def _record(options: Options, session: Session, start: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """The content of `run.json`, without energy and the digest of the weights."""
    data = session.data
    return {
        "created": now(),
        "architecture": session.network.architecture,
        "head": session.network.head,
        "labels": list(data.classes.names),
        **data.classes.to_dict(),
        "input": session.spec.to_dict(),
        "temperature": 1.0,
        "recipe": asdict(options.settings),
        "options": _plain(options),
        "start": start,
        "arithmetic": session.compute.arithmetic,
        "device": session.compute.device.type,
        "devices": session.processes.size,
        "data": data.facts(),
        "split": {
            "by": options.split,
            "fold": options.fold,
            "seed": _data_seed(options),
            "leaked": data.leaked,
            "leaked_at_least": data.leaks_at_least.leaked if data.leaks_at_least else None,
            "shuffled_labels": options.shuffle_labels,
            **_selection(options, data),
            "not_estimable": list(data.not_estimable),
        },
        "metrics": figures(
            logits, labels, data.groups[data.split.validation], data.classes, data.not_estimable, unit=data.who.unit
        ),
        "extended": [asdict(one) for one in options.extended],
        "versions": _versions(),
    }


def _selection(options: Options, data: Prepared) -> dict[str, Any]:
    """The part of the split used to select an epoch and its size, as in `run.json`; None if none was selected."""
    if not options.settings.selects:
        return {"selected_on": None, "selection": None}
    rows = data.split.selection
    people = len(np.unique(data.groups[rows])) if data.who.unit else None
    return {"selected_on": "selection", "selection": {"slices": len(rows), data.who.unit or "patients": people}}


def _write(session: Session, record: dict[str, Any], logits: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """Write the weights, the plots and the record of the run."""
    try:
        save_weights(session.model, folder, session.data.classes.names)
        record["weights_sha256"] = sha256_file(folder / WEIGHTS)
        plot_curves(session.metrics_log.epochs, folder / "curves.png")
        plot_confusion(logits.argmax(1), labels, session.data.classes, folder / "confusion.png")
        write_record(record, folder)
        page = index_page(finished_name(folder).name, record, linked(folder))
        (folder / INDEX).write_text(page, encoding="utf-8")
    except OSError as error:
        raise TrainingError(
            f"The run cannot be written to {folder}: {error}. Free disk space, then continue with --resume."
        ) from error


def _prepare(options: Options, processes: ProcessGroup) -> Prepared:
    recipe, (fold, folds) = options.settings, options.fold_of
    # Decoding needs only size and channels. Normalisation may depend on the decoded slices and is set later.
    channels = recipe.network(2).channels
    spec = InputSpec(recipe.image_size, recipe.image_size, channels, (0.0,) * channels, (1.0,) * channels)
    return prepare_once(
        processes,
        options.cache_limit * 1e9,
        lambda allocate: prepare(
            options.data,
            spec,
            max_unreadable=options.max_unreadable,
            split=options.split,
            fold=fold,
            folds=folds,
            seed=_data_seed(options),
            groups=options.groups,
            patient_pattern=options.patient_pattern,
            shuffle_labels=options.shuffle_labels,
            classes=options.label_set,
            positive=options.positive_classes,
            select=recipe.selects,
            allocate=allocate,
        ),
    )


def _data_seed(options: Options) -> int:
    return options.seed if options.data_seed is None else options.data_seed


def _input_spec(options: Options, data: Prepared) -> InputSpec:
    """The input specification, with ImageNet's mean and standard deviation or those of the training slices."""
    recipe = options.settings
    channels = recipe.network(2).channels
    if recipe.normalise == "imagenet":
        return InputSpec.imagenet(recipe.image_size)
    mean, std = channel_statistics(data.slices.pixels, data.split.training, channels)
    return InputSpec(recipe.image_size, recipe.image_size, channels, mean, std)


def _announce(
    options: Options,
    run: Path,
    data: Prepared,
    start: str,
    compute: Compute,
    processes: ProcessGroup,
) -> None:
    facts, recipe = data.facts(), options.settings
    logger.info(f"run {run}")
    logger.info(
        f"{facts['slices']} slices from {data.source}"
        + (f"; {len(data.unreadable)} unreadable files left out" if data.unreadable else "")
    )
    named = data.classes
    logger.info(f"classes in clinical order: {', '.join(named.names)}; positive: {', '.join(named.positive)}")
    for line in (*data.who.lines(), *(f"ignored: {skipped}" for skipped in data.skipped)):
        logger.info(line)
    devices = compute.device.type + (f" × {processes.size}" if processes.size > 1 else "")
    logger.info(
        f"recipe {recipe.name}: {start}, {recipe.image_size}×{recipe.image_size}, {compute.arithmetic} on "
        f"{devices}; {len(data.split.training)} training slices, {len(data.split.validation)} validation slices"
        + (f", {len(data.split.selection)} selection slices" if len(data.split.selection) else "")
    )
    for name in data.absent:
        logger.warning(f"the data has no slice of the class {name}. The network cannot learn to predict this class.")
    for name in data.not_estimable:
        people = len(np.unique(data.groups[data.slices.labels == data.classes.index(name)]))
        logger.info(
            f"{name} has {people} {data.who.unit}, fewer than folds. It is trained on; its metrics are not estimable."
        )
    if options.shuffle_labels is not None:
        logger.info(
            f"CONTROL: labels are permuted between {data.who.unit or 'slices'}. Evaluate this network as a negative "
            "control; do not use it."
        )
    if data.leaks_at_least is not None:
        logger.warning(f"PATIENTS UNKNOWN: no metric of this run is by patient. {at_least(data.leaks_at_least)}")
    elif data.leaked:
        what = "show a patient who" if data.who.unit == "patients" else "belong to a group that"
        logger.warning(f"LEAKAGE: {data.leaked:.0%} of the validation slices {what} is also in training.")


def _plain(options: Options) -> dict[str, Any]:
    """The options apart from the recipe; JSON-serialisable."""
    plain = {name: value for name, value in vars(options).items() if name not in ("settings", "extended")}
    return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "numpy", "pillow", "safetensors")
    return {
        "stageproof": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        **{package: version(package) for package in packages},
    }
