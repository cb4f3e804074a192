"""A network trained for one step on phantoms, with firm predictions of all classes: the reference of the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stageproof.export.reference.model import Reference
from stageproof.runtime.bundle.manifest import ModelInfo
from stageproof.runtime.networks.spec import NetworkSpec
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.batches import Batches
from stageproof.train.data.decode import safe_loader
from stageproof.train.data.samples import Samples
from stageproof.train.engine.features import backbone_features
from stageproof.train.engine.hooks import Hooks
from stageproof.train.engine.loop import Objective, run_stage
from stageproof.train.engine.optimizer import make_optimizer
from stageproof.train.engine.stage import StageState
from stageproof.train.foreign.class_order import ClassOrder
from stageproof.train.networks import construct, head_of
from stageproof.train.recipes import Stage
from stageproof.train.seeds import seed_dropouts

STEP = Stage(1, 1e-4, augment=False)
"""All parameters, one batch of all slices: one step."""
HEAD = {"linear": Stage(60, 1e-2, augment=False), "two-layer": Stage(60, 2e-3, augment=False)}
"""The head alone, on cached features, so that predictions are firm and of all classes. At 1e-2 the logits of a
two-layer head reach 245, and rounding in float32 alone changes a probability by 1.6e-4 from float64; at 2e-3 they
reach 24, and it changes one by 1.5e-5."""


def reference_of(architecture: str, size: int, samples: Samples) -> Reference:
    """The network after `STEP` and `HEAD`, through the training loop of `python -m train`. samples: labelled slices."""
    torch.manual_seed(0)
    spec = InputSpec.imagenet(size)
    info = ModelInfo(architecture, "0" * 64, samples.classes.names, samples.classes, spec)
    model = trained(info.network, samples, spec)
    reference = construct(info.network)  # without the seeded modules of training
    reference.load_state_dict(model.state_dict())
    reference.eval().requires_grad_(False)
    return Reference(reference, info, {}, None, ClassOrder(info.labels, "option", "given", info.classes))


def trained(network: NetworkSpec, samples: Samples, spec: InputSpec) -> nn.Module:
    """The network after both stages."""
    model = construct(network)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics of the one batch, instead of a tenth of them
            if not module.weight.any():  # of residual branches, which would compute nothing after one step
                nn.init.constant_(module.weight, 0.2)
    seed_dropouts(model)
    slices, _ = safe_loader(samples, spec)
    images = Batches(torch.from_numpy(slices.pixels), torch.from_numpy(slices.labels), spec, len(slices))
    _run("full", STEP, model, model, images, images)
    features = Batches(backbone_features(model, images, None), images.labels, None, 32)
    _run("head", HEAD[network.head], head_of(model), head_of(model), features, features)
    return model


def _run(name: str, stage: Stage, model: nn.Module, part: nn.Module, training: Batches, validation: Batches) -> None:
    optimizer = make_optimizer(
        "adamw", part.parameters(), learning_rate=stage.learning_rate, weight_decay=0.01, momentum=0.9
    )
    state = StageState(part, optimizer, device_type="cpu", fp16=False, ema=0.0)
    hooks = Hooks(
        measure=_no_figures,
        on_step=lambda step: None,
        on_epoch=lambda epoch: None,
        checkpoint=lambda: None,
        due=lambda: False,
        last_good=lambda: "none",
        stop=lambda: False,
    )
    run_stage(name, stage, model, part, state, training, validation, objective=Objective(clip_norm=1.0), hooks=hooks)


def _no_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"loss": 0.0, "accuracy": 0.0, "balanced_accuracy": 0.0, "patient_accuracy": 0.0}


def write_slices(samples: Samples, folder: Path) -> Path:
    """The slices as class folders, for --calibration-data."""
    for index, name in enumerate(samples.names):
        file = folder / samples.classes.names[samples.labels[index]] / Path(name).name
        file.parent.mkdir(parents=True, exist_ok=True)
        content: Any = samples.read(index)
        file.write_bytes(content)
    return folder
