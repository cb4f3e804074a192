"""More epochs for a run that --resume continues, whether it is finished or not. Imports no torch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.train.config.option_values import with_values
from stageproof.train.config.options import Extension, Options
from stageproof.train.config.saved_options import STAGES
from stageproof.train.recipes import Stage

logger = logging.getLogger(__name__)

EPOCHS = tuple(f"{name}.epochs" for name in STAGES)
"""The options that may be raised."""


def raised(options: Options, began: Options) -> list[str]:
    """The stages whose epochs are more than those of `began`. Raises InputError where they are fewer."""
    found = []
    for name in STAGES:
        now, then = _stage(options, name).epochs, _stage(began, name).epochs
        if now < then:
            raise InputError(
                f"--resume: --{name}.epochs is {now}, was {then}. Epochs can only be raised: leave the option out, or "
                "start a new run with another --out."
            )
        found += [name] if now > then else []
    return found


def extended(options: Options, began: Options, at: int, begun: bool, optimizer: str) -> Options:
    """`options` with the cycles of the schedules, and with what was extended.

    began: the options before. at: index of the stage that the run is in. begun: whether it has made a step. optimizer:
    ``kept``, or ``new`` if the run has no optimizer state.

    The learning rate of a constant schedule without warm-up does not depend on the number of epochs, nor does a stage
    that has not begun. Any other schedule ends as it began, and its added epochs are a further cycle.

    Raises CheckpointError for a stage that is complete.
    """
    settings, done = options.settings, list(began.extended)
    for name in raised(options, began):
        now, then = _stage(options, name), _stage(began, name)
        if STAGES.index(name) < at:
            raise CheckpointError(
                f"--{name}.epochs is {now.epochs}, was {then.epochs}, but the run has completed the stage {name} and "
                f"is in the stage {STAGES[at]}. Raise --{STAGES[at]}.epochs, or start a new run with another --out."
            )
        here = STAGES.index(name) == at and begun
        restarts = here and (then.schedule != "constant" or bool(then.warmup))
        done.append(
            Extension(
                name,
                then.epochs,
                now.epochs,
                "restarted" if restarts else "unchanged",
                optimizer if here else "not begun",
            )
        )
        if restarts:
            settings = with_values(settings, {f"{name}.restarts": (*then.restarts, then.epochs)})
    return replace(options, settings=settings, extended=tuple(done))


def announce(options: Options, before: int) -> None:
    """Log what was extended, after the first `before` extensions."""
    for one in options.extended[before:]:
        text = f"{one.stage}: extended from {one.before} to {one.epochs} epochs. "
        if one.schedule == "restarted":
            schedule = _stage(options, one.stage).schedule
            text += (
                f"The learning rate of the schedule ({schedule}, with its warm-up) depends on the number of epochs: "
                f"epochs {one.before + 1} to {one.epochs} are a new cycle (a warm restart), unlike in a run of "
                f"{one.epochs} epochs."
            )
        else:
            text += "The learning rates are those of a run with as many epochs from the start."
        if one.optimizer == "new":
            text += " The optimizer starts anew from the weights of the run, which has no optimizer state."
        logger.log(logging.INFO if one.schedule == "unchanged" and one.optimizer != "new" else logging.WARNING, text)


def place(run: Path, options: Options, began: Options) -> Path:
    """The new run directory for a finished run with more epochs. Raises CheckpointError if there are no more."""
    stages = raised(options, began)
    if not stages:
        raise CheckpointError(
            f"{run} is finished: there is nothing to resume. Give it more epochs, such as --full.epochs "
            f"{began.settings.full.epochs + 5}, or give another --out."
        )
    out = run.with_name("-".join([run.name, *(f"{name}-{_stage(options, name).epochs}" for name in stages)]))
    if out.exists():
        raise CheckpointError(f"{out} exists already: it is {run} with these epochs. Nothing was written.")
    return out


def _stage(options: Options, name: str) -> Stage:
    stage: Stage = getattr(options.settings, name)
    return stage
