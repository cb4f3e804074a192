"""Run under torchrun or alone by test_distributed.py: 20 steps of one stage; the leader writes what it saw as JSON.

Usage: ranks.py shared|frozen|mixup OUT
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.batches import Batches
from stageproof.train.data.decode import safe_loader
from stageproof.train.data.phantom.__main__ import phantom_samples
from stageproof.train.distributed.batchnorm import share_batchnorm
from stageproof.train.distributed.process_group import join
from stageproof.train.engine.hooks import Hooks, Step
from stageproof.train.engine.loop import Objective, predict, run_stage
from stageproof.train.engine.optimizer import make_optimizer
from stageproof.train.engine.stage import StageState
from stageproof.train.networks import build, head_of
from stageproof.train.recipes import Stage
from stageproof.train.runs.metrics_log import Epoch
from stageproof.train.seeds import seed_dropouts

kind, out = sys.argv[1], Path(sys.argv[2])
torch.set_num_threads(1)
with join("cpu") as processes:
    torch.manual_seed(processes.rank)  # each process starts elsewhere, so that the weights must be given
    frozen, mixup = kind == "frozen", 0.4 if kind == "mixup" else 0.0
    model = build("resnet50", 4)
    spec = InputSpec.imagenet(32 if frozen else 48)
    slices, _ = safe_loader(phantom_samples(5, 4, size=64), spec)
    seed_dropouts(model)
    model = share_batchnorm(model, "cpu") if processes.size > 1 else model
    processes.broadcast_weights(model)
    labels = torch.from_numpy(slices.labels)
    chosen = torch.arange(0, 79)  # an odd number: the processes' parts differ in size
    pixels = torch.from_numpy(slices.pixels)
    training = Batches(pixels, labels, spec, 16, chosen=chosen, augment=True, mixup=mixup, processes=processes)
    validation = Batches(pixels, labels, spec, 16, chosen=chosen[:23], processes=processes)
    trained = head_of(model) if frozen else model
    optimizer = make_optimizer("sgd", trained.parameters(), learning_rate=1, weight_decay=1e-3, momentum=0.9)
    state = StageState(trained, optimizer, device_type="cpu", fp16=False, ema=0.0)
    steps: list[Step] = []
    epochs: list[Epoch] = []

    def measure(logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        loss = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(truth)))
        return {"loss": loss, "accuracy": 0.0, "balanced_accuracy": 0.0, "patient_accuracy": 0.0}

    def nothing() -> None:
        """No checkpoints."""

    hooks = Hooks(measure, steps.append, epochs.append, nothing, lambda: False, lambda: "none", lambda: False)
    objective = Objective(class_weights=torch.tensor([1.0, 2.0, 0.5, 1.0]), label_smoothing=0.1)
    run_stage("x", Stage(4, 1e-5), model, trained, state, training, validation, objective=objective, hooks=hooks)
    logits, _ = predict(model, validation)
    seen = processes.all_gather([b.inputs.flatten(1).sum(1).tolist() for b in training.epoch(1)])
    weights = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    answer = {
        "ranks": processes.size,
        "losses": [step.step_loss for step in steps],
        "validation": [epoch.validation_loss for epoch in epochs],
        "logits": logits.tolist(),
        "seen": sorted(round(value, 2) for rank in seen for batch in rank for value in batch),
        "weights": list(processes.all_gather(hashlib.sha256(weights).hexdigest())),
    }
    if processes.leader:
        out.write_text(json.dumps(answer))
