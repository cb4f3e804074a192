"""One training run, from options to run directory."""

from __future__ import annotations

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
from stageproof.runtime.labels import LABELS
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.system.cpus import available_cpus
from stageproof.train.cards.run_index import INDEX, index_page, linked
from stageproof.train.config.options import Options
from stageproof.train.config.saved_options import write_options
from stageproof.train.data.batches import channel_statistics
from stageproof.train.data.cache import prepare_once
from stageproof.train.data.dataset import Prepared, prepare
from stageproof.train.data.unknown import at_least
from stageproof.train.distributed.process_group import Team, join
from stageproof.train.engine.device import Compute, choose_compute
from stageproof.train.engine.energy import EnergyMeter
from stageproof.train.engine.progress import Watch
from stageproof.train.engine.session import Session
from stageproof.train.engine.signals import StopRequest
from stageproof.train.metrics.validation import figures
from stageproof.train.models import CHANNELS
from stageproof.train.reports.training_figures import plot_confusion, plot_curves
from stageproof.train.runs.checkpoints import read_checkpoint
from stageproof.train.runs.directory import WEIGHTS, new_run, save_weights
from stageproof.train.runs.initial_weights import check_start
from stageproof.train.runs.record import now, write_record
from stageproof.train.runs.unfinished import RUNS, finished_name, has_checkpoint, partial_folder


def train(options: Options) -> tuple[Path, dict[str, Any]]:
    """The run directory and the content of its `run.json`; in every process of the team.

    Raises InputError, DatasetError or CheckpointError for what cannot be used, TrainingError when training fails, and
    `train.engine.loop.Interrupted` after SIGTERM or SIGINT, with a checkpoint written.
    """
    compute = choose_compute(options.device, options.precision)
    with join(compute.device.type) as team:
        if compute.device.type == "cuda":
            compute = replace(compute, device=torch.device("cuda", team.local_rank))
        torch.set_num_threads(_threads(team))
        out = team.agree(options.out or default_out(options))
        run = new_run(out, options.resume) if team.leader else nullcontext(partial_folder(out))
        with run as folder, Watch(quiet=not team.leader) as watch:
            record = _train(options, compute, team, folder, watch)
        team.wait()  # nobody leaves before the run has its name
    return out, record


def _threads(team: Team) -> int:
    """Threads for this process: what OMP_NUM_THREADS says, or its part of what the machine lends."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else max(1, available_cpus() // team.local_size)


def default_out(options: Options) -> Path:
    """Where a run goes that names no --out."""
    return RUNS / f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{options.settings.name}"


def _train(options: Options, compute: Compute, team: Team, folder: Path, watch: Watch) -> dict[str, Any]:
    checkpoint = read_checkpoint(folder) if options.resume and team.leader and has_checkpoint(folder) else None
    checkpoint = team.agree(checkpoint)
    if team.leader and checkpoint is None:
        check_start(options.weights, options.settings.architecture)
        write_options(options, folder)
    data = _prepare(options, team)
    if options.settings.keep == "patient_accuracy" and data.who.unit != "patients":
        raise InputError(
            f"--keep patient_accuracy needs known patients: {data.who.sentence()}. Choose another --keep, such as loss."
        )
    spec = _input_spec(options, data)
    if team.leader:
        data.write(folder)
    session = Session(options.settings, compute, team, spec, data, folder if team.leader else None, watch)
    start = session.initialise(options.weights, options.seed, checkpoint)
    _announce(options, finished_name(folder), data, start, compute, team, watch)
    meter = EnergyMeter(options.country) if options.energy and team.leader else None
    with StopRequest() as stop:
        logits, labels = session.run(
            stop,
            seed=options.seed,
            minutes=options.checkpoint_minutes,
            compile_model=options.compile,
            tensorboard=options.tensorboard,
        )
    record = {
        "created": now(),
        "architecture": options.settings.architecture,
        "labels": list(LABELS),
        "input": spec.to_dict(),
        "temperature": 1.0,
        "recipe": asdict(options.settings),
        "options": _plain(options),
        "start": start,
        "arithmetic": compute.arithmetic,
        "device": compute.device.type,
        "devices": team.size,
        "data": data.facts(),
        "split": {
            "by": options.split,
            "fold": options.fold,
            "seed": options.seed,
            "leaked": data.leaked,
            "leaked_at_least": data.leaks_at_least.leaked if data.leaks_at_least else None,
            "shuffled_labels": options.shuffle_labels,
            **_selection(options, data),
            "not_estimable": list(data.not_estimable),
        },
        "metrics": figures(logits, labels, data.groups[data.split.validation], data.not_estimable, unit=data.who.unit),
        "versions": _versions(),
    }
    if meter:
        record["energy"] = meter.stop()
    if team.leader:
        _write(session, record, logits, labels, folder)
    return record


def _selection(options: Options, data: Prepared) -> dict[str, Any]:
    """On which part of the split an epoch was selected, and how many that part has; None where none was."""
    if not options.settings.selects:
        return {"selected_on": None, "selection": None}
    rows = data.split.selection
    people = len(np.unique(data.groups[rows])) if data.who.unit else None
    return {"selected_on": "selection", "selection": {"slices": len(rows), data.who.unit or "patients": people}}


def _write(session: Session, record: dict[str, Any], logits: np.ndarray, labels: np.ndarray, folder: Path) -> None:
    """Weights, pictures and record: what makes the folder a run directory."""
    try:
        save_weights(session.model, folder)
        record["weights_sha256"] = sha256_file(folder / WEIGHTS)
        plot_curves(session.journal.epochs, folder / "curves.png")
        plot_confusion(logits.argmax(1), labels, folder / "confusion.png")
        write_record(record, folder)
        page = index_page(finished_name(folder).name, record, linked(folder))
        (folder / INDEX).write_text(page, encoding="utf-8")
    except OSError as error:
        raise TrainingError(
            f"The run cannot be written to {folder}: {error}. Make room, and finish it with --resume."
        ) from error


def _prepare(options: Options, team: Team) -> Prepared:
    recipe, (fold, folds) = options.settings, options.fold_of
    # Only the size and the channels matter to decoding; the rest may depend on what is decoded.
    channels = CHANNELS[recipe.architecture]
    spec = InputSpec(recipe.image_size, recipe.image_size, channels, (0.0,) * channels, (1.0,) * channels)
    return prepare_once(
        team,
        options.cache_limit * 1e9,
        lambda allocate: prepare(
            options.data,
            spec,
            max_unreadable=options.max_unreadable,
            split=options.split,
            fold=fold,
            folds=folds,
            seed=options.seed,
            groups=options.groups,
            patient_pattern=options.patient_pattern,
            shuffle_labels=options.shuffle_labels,
            select=recipe.selects,
            allocate=allocate,
        ),
    )


def _input_spec(options: Options, data: Prepared) -> InputSpec:
    """What the network takes: normalised as ImageNet was, or by the training slices' own mean and deviation."""
    recipe = options.settings
    channels = CHANNELS[recipe.architecture]
    if recipe.normalise == "imagenet":
        return InputSpec.imagenet(recipe.image_size)
    mean, std = channel_statistics(data.slices.pixels, data.split.training, channels)
    return InputSpec(recipe.image_size, recipe.image_size, channels, mean, std)


def _announce(
    options: Options, run: Path, data: Prepared, start: str, compute: Compute, team: Team, watch: Watch
) -> None:
    facts, recipe = data.facts(), options.settings
    watch.say(f"run {run}")
    watch.say(
        f"{facts['slices']} slices from {data.source}"
        + (f"; {len(data.unreadable)} unreadable files left out" if data.unreadable else "")
    )
    for line in (*data.who.lines(), *(f"not taken: {skipped}" for skipped in data.skipped)):
        watch.say(line)
    devices = compute.device.type + (f" × {team.size}" if team.size > 1 else "")
    watch.say(
        f"recipe {recipe.name}: {start}, {recipe.image_size}×{recipe.image_size}, {compute.arithmetic} on "
        f"{devices}, {len(data.split.training)} slices to train on, {len(data.split.validation)} to validate"
        + (f", {len(data.split.selection)} apart from both to select an epoch on" if len(data.split.selection) else "")
    )
    for name in data.absent:
        watch.say(
            f"NO {name}: the data has no slice of this class. The network cannot learn it and must not answer it."
        )
    for name in data.not_estimable:
        people = len(np.unique(data.groups[data.slices.labels == LABELS.index(name)]))
        watch.say(
            f"{name} is {people} {data.who.unit}, fewer than the folds: trained on, but no figure is estimable for it."
        )
    if options.shuffle_labels is not None:
        watch.say(
            f"CONTROL: the {data.who.unit or 'slices'} of all parts have each other's labels. This network is to be "
            "judged and thrown away."
        )
    if data.leaks_at_least is not None:
        watch.say(f"PATIENTS UNKNOWN: no figure of this run is about patients. {at_least(data.leaks_at_least)}")
    elif data.leaked:
        what = "show a patient who" if data.who.unit == "patients" else "are of a group that"
        watch.say(f"LEAKAGE: {data.leaked:.0%} of the validation slices {what} is in training too.")


def _plain(options: Options) -> dict[str, Any]:
    """The options apart from the recipe; JSON-ready."""
    plain = {name: value for name, value in vars(options).items() if name != "settings"}
    return {name: str(value) if isinstance(value, Path) else value for name, value in plain.items()}


def _versions() -> dict[str, str]:
    packages = ("torch", "torchvision", "numpy", "pillow", "safetensors")
    return {
        "stageproof": __version__,
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        **{package: version(package) for package in packages},
    }
