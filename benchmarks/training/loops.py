"""The training loops that are compared. Each `TimedRun` trains on, or runs inference on, all of its slices once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.system.cpus import available_cpus
from stageproof.train.data.batches import Batches
from stageproof.train.data.decode import Slices
from stageproof.train.engine.device import Compute
from stageproof.train.engine.features import backbone_features
from stageproof.train.engine.hooks import Hooks
from stageproof.train.engine.loop import Objective, run_stage
from stageproof.train.engine.optimizer import make_optimizer
from stageproof.train.engine.stage import StageState
from stageproof.train.networks import build, head_of
from stageproof.train.recipes import Stage

TimedRun = Callable[[object], None]
"""Function that returns when the device has finished; its argument is ignored."""

_RATE = 1e-5
_NO_METRICS = {"loss": 0.0, "accuracy": 0.0, "balanced_accuracy": 0.0, "patient_accuracy": 0.0}
_HOOKS = Hooks(
    measure=lambda logits, labels: _NO_METRICS,
    on_step=lambda step: None,
    on_epoch=lambda epoch: None,
    checkpoint=lambda: None,
    due=lambda: False,
    last_good=lambda: "none",
    stop=lambda: False,
)
"""Hooks without metrics or checkpoints, since only the training steps are timed."""


def whole_loop(slices: Slices, classes: int, spec: InputSpec, batch_size: int, compute: Compute) -> TimedRun:
    """One epoch of stage 2: cached slices, shuffled, augmented, normalised; AdamW with clipped gradients."""
    model = _model(classes, compute).to(memory_format=torch.channels_last)
    images = _batches(slices, spec, batch_size, compute, augment=True)
    state = _state(model, compute)

    def turn(_: object) -> None:
        # Continues for one more epoch each time, with the same optimizer.
        _stage(model, state, images, Stage(state.epoch, _RATE), compute)

    return turn


def plain(folder: Path, classes: int, spec: InputSpec, batch_size: int, compute: Compute) -> TimedRun:
    """One epoch as in tutorials: `ImageFolder` with transforms, `DataLoader`, float32, NCHW, AdamW.

    On the CPU it has no worker processes: they would compete with training for the same cores, and decode while other
    contenders are timed.
    """
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose(
        [
            transforms.Resize((spec.height, spec.width)),
            transforms.RandomHorizontalFlip(),
            transforms.RandomAffine(10, (0.04, 0.04), (0.92, 1.08)),
            transforms.ToTensor(),
            transforms.Normalize(spec.mean, spec.std),
        ]
    )
    gpu = compute.device.type == "cuda"
    workers = available_cpus() if gpu else 0
    loader = DataLoader(
        ImageFolder(folder, transform),
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=gpu,
    )
    model = _model(classes, compute)
    optimizer = torch.optim.AdamW(model.parameters(), _RATE)

    def turn(_: object) -> None:
        model.train()
        for images, labels in loader:
            loss = F.cross_entropy(model(images.to(compute.device)), labels.to(compute.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        _finish(compute)

    return turn


def in_memory(slices: Slices, classes: int, spec: InputSpec, batch_size: int, compute: Compute) -> TimedRun:
    """The arithmetic alone: the same network, precision and optimizer, on batches that are already on the device."""
    model = _model(classes, compute).to(memory_format=torch.channels_last)
    optimizer = _optimizer(model)
    batches = [(batch.inputs, batch.labels) for batch in _batches(slices, spec, batch_size, compute).in_order()]

    def turn(_: object) -> None:
        model.train()
        for images, labels in batches:
            with torch.autocast(compute.device.type, compute.amp, enabled=compute.amp is not None):
                logits = model(images)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()
        _finish(compute)

    return turn


def head_stage(
    slices: Slices, classes: int, spec: InputSpec, batch_size: int, compute: Compute, epochs: int = 10
) -> TimedRun:
    """Stage 1: caching the features of the frozen backbone, then training the head on them for `epochs` epochs."""
    model = _model(classes, compute).to(memory_format=torch.channels_last)
    images = _batches(slices, spec, batch_size, compute)

    def turn(_: object) -> None:
        features = backbone_features(model, images, compute.amp)
        seen = Batches(features, images.labels, None, batch_size, device=compute.device)
        head = head_of(model)
        _stage(head, _state(head, compute), seen, Stage(epochs, 1e-3, augment=False), compute)

    return turn


def forward_pass(slices: Slices, classes: int, spec: InputSpec, batch_size: int, compute: Compute) -> TimedRun:
    """One forward pass of the same network over the same slices, already on the device, without gradients."""
    model = _model(classes, compute).to(memory_format=torch.channels_last).eval()
    batches = [batch.inputs for batch in _batches(slices, spec, batch_size, compute).in_order()]

    def turn(_: object) -> None:
        with (
            torch.inference_mode(),
            torch.autocast(compute.device.type, compute.amp, enabled=compute.amp is not None),
        ):
            for images in batches:
                model(images)
        _finish(compute)

    return turn


def _stage(model: nn.Module, state: StageState, training: Batches, stage: Stage, compute: Compute) -> None:
    validation = Batches(
        training.inputs,
        training.labels,
        training.spec,
        training.batch_size,
        chosen=torch.zeros(0, dtype=torch.int64),
        device=compute.device,
    )
    objective = Objective(clip_norm=1.0, amp=compute.amp)
    run_stage("timed", stage, model, model, state, training, validation, objective=objective, hooks=_HOOKS)
    _finish(compute)


def _state(trained: nn.Module, compute: Compute) -> StageState:
    fp16 = compute.amp is torch.float16
    return StageState(trained, _optimizer(trained), device_type=compute.device.type, fp16=fp16, ema=0.0)


def _optimizer(trained: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the training recipe."""
    return make_optimizer("adamw", trained.parameters(), learning_rate=_RATE, weight_decay=0.01, momentum=0.0)


def _model(classes: int, compute: Compute) -> nn.Module:
    return build("resnet50", classes).to(compute.device)


def _batches(slices: Slices, spec: InputSpec, size: int, compute: Compute, *, augment: bool = False) -> Batches:
    pixels, labels = torch.from_numpy(slices.pixels).to(compute.device), torch.from_numpy(slices.labels)
    return Batches(pixels, labels, spec, size, augment=augment, device=compute.device)


def _finish(compute: Compute) -> None:
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)
