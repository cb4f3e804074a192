"""The one training loop. Every stage calls `run_stage`; mixed precision is `enabled=`, never a second loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from stageproof.runtime.errors import TrainingError
from stageproof.runtime.labels import LABELS
from stageproof.train.data.batches import Batch, Batches
from stageproof.train.distributed.process_group import Team
from stageproof.train.engine.hooks import Hooks, Step
from stageproof.train.engine.optimizer import clip_gradients, rate_factor
from stageproof.train.engine.stage import StageState
from stageproof.train.recipes import Stage
from stageproof.train.runs.metrics_log import Epoch
from stageproof.train.seeds import derive, place_dropouts


@dataclass(frozen=True)
class Objective:
    """What is minimised, and how a step goes about it."""

    class_weights: torch.Tensor | None = None
    """(classes,) float32 on the CPU, or None: each slice counts alike."""
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    """0 does not clip."""
    amp: torch.dtype | None = None
    """bfloat16 or float16 for autocast, None for float32 throughout."""


class Interrupted(Exception):  # noqa: N818  (not an error: the run can go on)
    """The run was asked to stop, finished its step and wrote a checkpoint."""


def _validation(figures: Mapping[str, float]) -> dict[str, Any]:
    """The validation figures as `Epoch` has them; that of patients is None where nobody knows them."""
    return {"validation_patient_accuracy": None, **{f"validation_{name}": value for name, value in figures.items()}}


def run_stage(
    name: str,
    stage: Stage,
    model: nn.Module,
    trained: nn.Module,
    state: StageState,
    training: Batches,
    validation: Batches,
    *,
    objective: Objective,
    hooks: Hooks,
    keep: str = "last",
    patience: int = 0,
) -> None:
    """Train in place until the stage ends, from where `state` stands.

    model: computes logits; what of it is not in `trained` is frozen, its BatchNorm in eval mode.
    keep: ``last``, or the validation figure whose best epoch gives the weights that the stage ends with.
    patience: epochs without a better figure (the loss, for ``last``) after which it ends early; 0: never.

    Raises TrainingError at a loss that is not finite, with the step and the learning rate; Interrupted when
    `hooks.stop` said so in any process.
    """
    model.requires_grad_(False)
    trained.requires_grad_(True)
    judged_by = "loss" if keep == "last" else keep
    while state.epoch <= stage.epochs and not (patience and state.stale >= patience):
        _train_epoch(name, stage, model, trained, state, training, objective, hooks)
        with state.average.applied() if state.average else nullcontext():
            figures = hooks.measure(*predict(model, validation, objective.amp))
            state.judge(figures[judged_by], smaller_is_better=judged_by == "loss", keep_weights=keep != "last")
        loss, right, seen = state.sums
        hooks.on_epoch(
            Epoch(
                stage=name,
                epoch=state.epoch,
                loss=loss / seen,
                accuracy=right / seen,
                **_validation(figures),
                learning_rate=_rate(stage, state.epoch, len(training) - 1, len(training)),
                images_per_second=seen / state.seconds,
                seconds=state.seconds,
            )
        )
        state.next_epoch()
        if hooks.worth():
            hooks.checkpoint()
    if keep != "last" and state.best_weights is not None:
        trained.load_state_dict(state.best_weights)
    elif state.average:
        trained.load_state_dict(state.average.values)


def _train_epoch(
    name: str,
    stage: Stage,
    model: nn.Module,
    trained: nn.Module,
    state: StageState,
    training: Batches,
    objective: Objective,
    hooks: Hooks,
) -> None:
    """The rest of the epoch that `state` stands in."""
    model.eval()
    trained.train()
    steps, waiting = len(training), None
    clock = time.perf_counter()

    def book(figures: _Later) -> bool:
        """Add a step's figures to the epoch's; whether to stop."""
        nonlocal clock
        loss, right, stop = figures.read()
        where = f"step {figures.step} of epoch {state.epoch}, stage {name}, learning rate {figures.rate:.2e}"
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at {where}. Lower the learning rate, or train with --precision fp32. Last good "
                f"checkpoint: {hooks.last_good()}."
            )
        state.sums = [a + b for a, b in zip(state.sums, (loss * figures.count, right, figures.count), strict=True)]
        state.seconds += time.perf_counter() - clock
        clock = time.perf_counter()
        total, correct, seen = state.sums
        so_far = (loss, total / seen, correct / seen, seen / state.seconds, figures.rate)
        hooks.on_step(Step(name, state.epoch, figures.step, steps, *so_far))
        return stop > 0

    told = False
    for batch in training.epoch(state.epoch, state.step):
        rate = _rate(stage, state.epoch, state.step, steps)
        seed = derive(training.seed, "dropout", state.epoch, state.step)
        sums = _step(model, trained, state, batch, training.team, rate, seed, objective, hooks)
        state.step += 1
        # A step's figures are read while the device works on the next one: waiting for them would leave it idle.
        stop = book(waiting) if waiting is not None else told
        waiting = _Later(sums, state.step, rate, len(batch.all_labels))
        if stop or hooks.due():
            # Only the leader knows when one is due, and nobody may stop a step before the others.
            told, waiting = book(waiting), None
            hooks.checkpoint()
            if stop:
                training.team.wait()  # whoever leaves first may end the others: the leader has written by then
                raise Interrupted
            clock = time.perf_counter()
    if waiting is not None:
        book(waiting)


def _step(
    model: nn.Module,
    trained: nn.Module,
    state: StageState,
    batch: Batch,
    team: Team,
    rate: float,
    seed: int,
    objective: Objective,
    hooks: Hooks,
) -> torch.Tensor:
    """One step of the optimizer; (3,) float64 over all processes: mean loss, right answers, processes told to stop."""
    parameters = list(trained.parameters())
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    while True:
        try:
            sums = _backward(model, state, batch, seed, objective)
            break
        except torch.OutOfMemoryError as error:
            rows = len(batch.labels)
            if team.size > 1 or state.parts >= rows:
                raise TrainingError(
                    f"Out of memory with {rows // state.parts} slices on each device. Lower --batch-size or "
                    f"--image-size. Last good checkpoint: {hooks.last_good()}."
                ) from error
            state.parts *= 2
        hooks.say(
            f"Out of memory: batches of {rows} are now computed in {state.parts} parts, with the same gradient. "
            "BatchNorm sees one part at a time."
        )
        torch.cuda.empty_cache()
    sums[2] = hooks.stop()
    sums = team.sum(sums)
    team.sum_gradients(parameters)
    state.scaler.unscale_(state.optimizer)
    if objective.clip_norm:
        clip_gradients(parameters, objective.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average:
        state.average.update()
    return sums


def _backward(model: nn.Module, state: StageState, batch: Batch, seed: int, objective: Objective) -> torch.Tensor:
    """Gradients of this process's part of the batch; (3,) float64 of its loss, its right answers and a zero."""
    state.optimizer.zero_grad(set_to_none=True)
    device, weights = batch.inputs.device, objective.class_weights
    # Dividing by the whole batch's weight, so that gradients and losses of the parts add up, on any number of devices.
    weight = float(len(batch.all_labels) if weights is None else weights[batch.all_labels].sum())
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    done = batch.rows.start
    for inputs, labels in zip(
        batch.inputs.tensor_split(state.parts), batch.labels.tensor_split(state.parts), strict=True
    ):
        place_dropouts(model, seed, len(batch.all_labels), slice(done, done + len(labels)))
        done += len(labels)
        with torch.autocast(device.type, objective.amp, enabled=objective.amp is not None):
            logits = model(inputs)
        loss = F.cross_entropy(
            logits.float(),
            labels,
            weight=None if weights is None else weights.to(device),
            label_smoothing=objective.label_smoothing,
            reduction="sum",
        )
        state.scaler.scale(loss / weight).backward()
        sums[0] += loss.detach() / weight
        sums[1] += (logits.detach().argmax(1) == labels).sum()
    return sums


class _Later:
    """The figures of a step on their way from the device."""

    def __init__(self, sums: torch.Tensor, step: int, rate: float, count: int) -> None:
        self.step, self.rate, self.count = step, rate, count
        self._sums = torch.empty(3, dtype=sums.dtype, pin_memory=sums.is_cuda).copy_(sums, non_blocking=True)
        self._arrived = torch.cuda.Event() if sums.is_cuda else None
        if self._arrived:
            self._arrived.record()

    def read(self) -> list[float]:
        if self._arrived:
            self._arrived.synchronize()
        figures: list[float] = self._sums.tolist()
        return figures


def _rate(stage: Stage, epoch: int, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of epoch `epoch` (from 1)."""
    at = (epoch - 1) * steps + step
    return stage.learning_rate * rate_factor(stage.schedule, stage.warmup, at, stage.epochs * steps)


def predict(model: nn.Module, batches: Batches, amp: torch.dtype | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(N, classes) float32 logits and (N,) int64 labels of all processes' slices, in order; model in eval mode."""
    model.eval()
    logits = []
    with torch.inference_mode(), torch.autocast(batches.device.type, amp, enabled=amp is not None):
        for batch in batches.in_order():
            logits.append(model(batch.inputs).float())
        mine = torch.cat(logits) if logits else torch.zeros(0, len(LABELS), device=batches.device)
        everyone = batches.team.gather(mine, len(batches.chosen))
    return everyone.cpu().numpy(), batches.labels[batches.chosen].numpy()
