"""The one training loop. Both stages call `run_stage`; mixed precision is `enabled=`, never a second loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from runtime.errors import TrainingError
from train.data.batches import Batches
from train.models import head_of
from train.recipes import Stage


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training slices gave."""

    stage: str
    epoch: int
    """From 1."""
    loss: float
    """Mean cross-entropy over the training slices, augmented, dropout on."""
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds: float


Step = Callable[[str, int, int, int, float, float, float], None]
"""Called after each step: stage, epoch, step, steps an epoch, mean loss, accuracy, images/s."""


def run_stage(
    name: str,
    stage: Stage,
    model: nn.Module,
    training: Batches,
    validation: Batches,
    *,
    frozen_backbone: bool,
    weight_decay: float,
    clip_norm: float,
    amp: torch.dtype | None,
    on_step: Step,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Train `model` in place for one stage.

    frozen_backbone: train the head alone, with the backbone's BatchNorm in eval mode.
    amp: bfloat16 or float16 for autocast, None for float32 throughout.

    Raises TrainingError at the first loss that is not finite, with the step and the learning rate.
    """
    device = training.device
    trained = list((head_of(model) if frozen_backbone else model).parameters())
    for parameter in model.parameters():
        parameter.requires_grad_(not frozen_backbone)
    for parameter in trained:
        parameter.requires_grad_(True)
    steps = stage.epochs * len(training)
    optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _factor(stage.schedule, steps))
    scaler = torch.amp.GradScaler(device.type, enabled=amp is torch.float16)
    for epoch in range(1, stage.epochs + 1):
        model.train()
        if frozen_backbone:
            model.eval()
            head_of(model).train()
        start, seen, total, correct = time.perf_counter(), 0, 0.0, 0
        for step, (images, labels) in enumerate(training, 1):
            with torch.autocast(device.type, amp, enabled=amp is not None):
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels)
            value, rate = loss.item(), float(schedule.get_last_lr()[0])
            if not math.isfinite(value):
                raise TrainingError(
                    f"The loss is {value} at step {step} of epoch {epoch}, stage {name}, learning rate {rate:.2e}. "
                    "Lower the learning rate, or train with --precision fp32."
                )
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(trained, clip_norm)
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            seen += len(labels)
            total += value * len(labels)
            correct += int((logits.argmax(1) == labels).sum())
            speed = seen / (time.perf_counter() - start)
            on_step(name, epoch, step, len(training), total / seen, correct / seen, speed)
        seconds = time.perf_counter() - start
        logits_, labels_ = predict(model, validation, amp)
        on_epoch(
            Epoch(
                stage=name,
                epoch=epoch,
                loss=total / seen,
                accuracy=correct / seen,
                validation_loss=float(F.cross_entropy(torch.from_numpy(logits_), torch.from_numpy(labels_))),
                validation_accuracy=float((logits_.argmax(1) == labels_).mean()),
                learning_rate=rate,
                images_per_second=seen / seconds,
                seconds=seconds,
            )
        )


def predict(model: nn.Module, batches: Batches, amp: torch.dtype | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(N, classes) float32 logits and (N,) int64 labels, model in eval mode."""
    model.eval()
    logits, labels = [], []
    with torch.inference_mode(), torch.autocast(batches.device.type, amp, enabled=amp is not None):
        for images, truth in batches:
            logits.append(model(images).float().cpu())
            labels.append(truth.cpu())
    return torch.cat(logits).numpy(), torch.cat(labels).numpy()


def _factor(schedule: str, steps: int) -> Callable[[int], float]:
    """Share of the peak learning rate at each step: one-cycle rises over 25 % of the steps, then falls as a cosine."""
    if schedule == "constant":
        return lambda step: 1.0
    rise = max(1, round(0.25 * steps))

    def one_cycle(step: int) -> float:
        if step < rise:
            return 0.04 + 0.96 * step / rise
        return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))

    return one_cycle
