"""The training loop, `run_stage`, and `predict`. All stages and precisions use the same loop."""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from stageproof.runtime.errors import TrainingError
from stageproof.train.data.batches import Batch, Batches
from stageproof.train.distributed.process_group import ProcessGroup
from stageproof.train.engine.hooks import Hooks, Step
from stageproof.train.engine.optimizer import clip_gradients, rate_factor
from stageproof.train.engine.stage import StageState
from stageproof.train.networks import load_state
from stageproof.train.recipes import Stage
from stageproof.train.runs.metrics_log import Epoch
from stageproof.train.seeds import derive, place_dropouts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Objective:
    """The loss function and how a step minimises it."""

    class_weights: torch.Tensor | None = None
    """(classes,) float32 on the CPU, as in torch.nn.CrossEntropyLoss; None: every slice has weight 1."""
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    """Maximum gradient norm; 0: no clipping."""
    amp: torch.dtype | None = None
    """bfloat16 or float16 for autocast, None for float32 throughout."""

    def loss(self, logits: torch.Tensor, labels: torch.Tensor, partners: torch.Tensor, share: float) -> torch.Tensor:
        """Cross-entropy summed over the (B, classes) float32 logits, for soft labels: `share` of `labels`, and the rest
        of `partners`, (B,) int64 each. Class weights and label smoothing are those of torch.nn.CrossEntropyLoss.

        It is linear in the labels, so the loss of a mixture is the mixture of the losses.
        """
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        losses = [
            F.cross_entropy(logits, one, weight=weights, label_smoothing=self.label_smoothing, reduction="sum")
            for one in ((labels, partners) if share < 1 else (labels,))
        ]
        return losses[0] if share == 1 else share * losses[0] + (1 - share) * losses[1]


class Interrupted(Exception):  # noqa: N818  (not an error: the run can be resumed)
    """Training stopped on a signal, after finishing the step and writing a checkpoint."""


def _validation(figures: Mapping[str, float]) -> dict[str, Any]:
    """Validation metrics under the field names of `Epoch`; patient accuracy is None if patients are unknown."""
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
    """Train `trained` in place until the stage ends, starting from `state`.

    model: computes the logits. Its parts outside of `trained` are frozen, their BatchNorm layers in eval mode.
    keep: ``last``, or the validation metric that selects the epoch whose weights are kept.
    patience: epochs without an improvement of that metric (of the loss, for ``last``) before the stage is stopped
        early; 0: no early stopping.

    Raises TrainingError if the loss is not finite, with the step and the learning rate; Interrupted if `hooks.stop`
    returned True in any process.
    """
    model.requires_grad_(False)
    trained.requires_grad_(True)
    judged_by = "loss" if keep == "last" else keep
    while state.epoch <= stage.epochs and not (patience and state.stale >= patience):
        _train_epoch(name, stage, model, trained, state, training, objective, hooks)
        with state.average.applied() if state.average else nullcontext():
            figures = hooks.measure(*predict(model, validation, objective.amp))
            state.update_best(figures[judged_by], smaller_is_better=judged_by == "loss", keep_weights=keep != "last")
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
        if hooks.worthwhile():
            hooks.checkpoint()
    if keep != "last" and state.best_weights is not None:
        load_state(trained, state.best_weights)
    elif state.average:
        load_state(trained, state.average.values)


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
    """Train the remaining steps of the epoch of `state`."""
    model.eval()
    trained.train()
    steps, pending = len(training), None
    clock = time.perf_counter()

    def record(figures: _PendingStep) -> bool:
        """Add the metrics of a step to those of the epoch; returns whether to stop."""
        nonlocal clock
        loss, right, stop = figures.read()
        where = f"step {figures.step} of epoch {state.epoch}, stage {name}, learning rate {figures.rate:.2e}"
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at {where}. Lower the learning rate, or train with --precision fp32. Last "
                f"checkpoint: {hooks.last_good()}."
            )
        state.sums = [a + b for a, b in zip(state.sums, (loss * figures.count, right, figures.count), strict=True)]
        state.seconds += time.perf_counter() - clock
        clock = time.perf_counter()
        total, correct, seen = state.sums
        so_far = (loss, total / seen, correct / seen, seen / state.seconds, figures.rate)
        hooks.on_step(Step(name, state.epoch, figures.step, steps, *so_far))
        return stop > 0

    stop_recorded = False
    for batch in training.epoch(state.epoch, state.step):
        rate = _rate(stage, state.epoch, state.step, steps)
        seed = derive(training.seed, "dropout", state.epoch, state.step)
        sums = _step(model, trained, state, batch, training.processes, rate, seed, objective, hooks)
        state.step += 1
        # The metrics of a step are read while the device computes the next step, so that the device is never idle.
        stop = record(pending) if pending is not None else stop_recorded
        pending = _PendingStep(sums, state.step, rate, len(batch.all_labels))
        if stop or hooks.due():
            # Only rank 0 knows when a checkpoint is due, and all processes must stop after the same step.
            stop_recorded, pending = record(pending), None
            hooks.checkpoint()
            if stop:
                training.processes.barrier()  # a process that exits may end the others: rank 0 must have written first
                raise Interrupted
            clock = time.perf_counter()
    if pending is not None:
        record(pending)


def _step(
    model: nn.Module,
    trained: nn.Module,
    state: StageState,
    batch: Batch,
    processes: ProcessGroup,
    rate: float,
    seed: int,
    objective: Objective,
    hooks: Hooks,
) -> torch.Tensor:
    """One optimizer step; (3,) float64 over all processes: mean loss, correct predictions, processes that must stop."""
    parameters = list(trained.parameters())
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    while True:
        try:
            sums = _backward(model, state, batch, seed, objective)
            break
        except torch.OutOfMemoryError as error:
            rows = len(batch.labels)
            if processes.size > 1 or state.parts >= rows:
                raise TrainingError(
                    f"Out of memory with {rows // state.parts} slices on each device. Lower --batch-size or "
                    f"--image-size. Last checkpoint: {hooks.last_good()}."
                ) from error
            state.parts *= 2
        logger.warning(
            f"Out of memory: each batch of {rows} is now computed in {state.parts} parts whose gradients are added. "
            "BatchNorm statistics are those of each part."
        )
        torch.cuda.empty_cache()
    sums[2] = hooks.stop()
    sums = processes.all_reduce(sums)
    processes.sum_gradients(parameters)
    state.scaler.unscale_(state.optimizer)
    if objective.clip_norm:
        clip_gradients(parameters, objective.clip_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average:
        state.average.update()
    return sums


def _backward(model: nn.Module, state: StageState, batch: Batch, seed: int, objective: Objective) -> torch.Tensor:
    """Compute the gradients of this process's part of the batch; (3,) float64: loss, correct predictions, 0."""
    state.optimizer.zero_grad(set_to_none=True)
    device, weights = batch.inputs.device, objective.class_weights
    # Divided by the weight of the whole batch, so that losses and gradients of all parts and devices add up. With MixUp
    # the labels of the partners are a permutation of those of the batch, so that the weight is the same.
    weight = float(len(batch.all_labels) if weights is None else weights[batch.all_labels].sum())
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    done = batch.rows.start
    partners = batch.labels if batch.partners is None else batch.partners
    whole = (batch.inputs, batch.labels, partners)
    for inputs, labels, others in zip(*(tensor.tensor_split(state.parts) for tensor in whole), strict=True):
        place_dropouts(model, seed, len(batch.all_labels), slice(done, done + len(labels)))
        done += len(labels)
        with torch.autocast(device.type, objective.amp, enabled=objective.amp is not None):
            logits = model(inputs)
        loss = objective.loss(logits.float(), labels, others, batch.share)
        state.scaler.scale(loss / weight).backward()
        sums[0] += loss.detach() / weight
        predicted = logits.detach().argmax(1)
        sums[1] += batch.share * (predicted == labels).sum() + (1 - batch.share) * (predicted == others).sum()
    return sums


class _PendingStep:
    """Metrics of a step, copied from the device without waiting for it; `read` waits."""

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
    """Learning rate in step `step` (from 0) of epoch `epoch` (from 1)."""
    cycle = bisect_right(stage.restarts, epoch - 1)
    first, end = (0, *stage.restarts, stage.epochs)[cycle : cycle + 2]
    at = (epoch - 1 - first) * steps + step
    return stage.learning_rate * rate_factor(stage.schedule, stage.warmup, at, (end - first) * steps)


def predict(model: nn.Module, batches: Batches, amp: torch.dtype | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(N, classes) float32 logits and (N,) int64 labels of the slices of all processes, in order, in eval mode."""
    model.eval()
    logits = []
    with torch.inference_mode(), torch.autocast(batches.device.type, amp, enabled=amp is not None):
        for batch in batches.in_order():
            logits.append(model(batch.inputs).float())
        mine = torch.cat(logits) if logits else torch.zeros(0, _outputs(model), device=batches.device)
        everyone = batches.processes.gather(mine, len(batches.chosen))
    return everyone.cpu().numpy(), batches.labels[batches.chosen].numpy()


def _outputs(model: nn.Module) -> int:
    """Number of classes of a network, whose head is defined last: for a process without a slice to predict."""
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    last = layers[-1]
    return last.out_features if isinstance(last, nn.Linear) else last.out_channels
