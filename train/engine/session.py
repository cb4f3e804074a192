"""`Session`: trains the stages of a run one after the other, and writes its metrics and checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.batches import Batches
from stageproof.train.data.dataset import Prepared
from stageproof.train.distributed.batchnorm import share_batchnorm
from stageproof.train.distributed.process_group import ProcessGroup
from stageproof.train.engine.device import Compute
from stageproof.train.engine.features import backbone_features
from stageproof.train.engine.hooks import Hooks
from stageproof.train.engine.loop import Objective, predict, run_stage
from stageproof.train.engine.optimizer import make_optimizer
from stageproof.train.engine.progress import ProgressBar
from stageproof.train.engine.signals import StopRequest
from stageproof.train.engine.stage import StageState
from stageproof.train.metrics.validation import figures
from stageproof.train.networks import construct, head_of, load_state
from stageproof.train.recipes import Recipe, Stage
from stageproof.train.runs.checkpoints import CheckpointWriter
from stageproof.train.runs.initial_weights import initialise
from stageproof.train.runs.metrics_log import Epoch, MetricsLog
from stageproof.train.seeds import derive, seed_dropouts

logger = logging.getLogger(__name__)

MOVED_SHARE = 0.25
"""Decoded slices are kept on the GPU if they take less than this share of its free memory."""


class Session:
    """The model, data and output folder of a run in one process.

    folder: None in all processes except rank 0, which alone writes.
    """

    def __init__(
        self,
        recipe: Recipe,
        compute: Compute,
        processes: ProcessGroup,
        spec: InputSpec,
        data: Prepared,
        folder: Path | None,
        progress: ProgressBar,
    ) -> None:
        self.recipe, self.compute, self.processes, self.spec = recipe, compute, processes, spec
        self.data, self.folder, self.progress = data, folder, progress
        self.network = recipe.network(len(data.classes))
        self.model = construct(self.network)
        self.stages = (("head", recipe.head), ("full", recipe.full))
        self.metrics_log = MetricsLog(None)
        self._from: Mapping[str, Any] | None = None
        self._start = ""

    def initialise(self, weights: str, seed: int, checkpoint: Mapping[str, Any] | None) -> str:
        """Load the initial weights, or those of `checkpoint`, into the model of every process; returns a description.

        Raises CheckpointError if the weights do not fit the model, or if the data has changed since the checkpoint.
        """
        if checkpoint is None:
            torch.manual_seed(seed)
            self.model = construct(self.network)
            self._start = initialise(self.model, weights, self.network, self.data.classes)
        else:
            if checkpoint["digest"] != self.data.digest:
                raise CheckpointError(
                    f"{self.data.source} has changed since the run began: its digest is {self.data.digest[:12]}…, "
                    f"the checkpoint has {checkpoint['digest'][:12]}…. Restore the data, or start another run."
                )
            load_state(self.model, checkpoint["model_state_dict"])
            self._start = checkpoint["start"]
        self._from = checkpoint
        seed_dropouts(self.model)
        if self.processes.size > 1:
            self.model = share_batchnorm(self.model, self.compute.device.type)
        self.model.to(self.compute.device).to(memory_format=torch.channels_last)
        self.processes.broadcast_weights(self.model)
        return self._start if checkpoint is None else f"{self._start}, resumed"

    def run(
        self, stop: StopRequest, *, seed: int, minutes: float, compile_model: bool, tensorboard: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Train all stages; returns (N, classes) float32 logits, computed without autocast, and (N,) labels of the
        validation slices."""
        past = [Epoch(**fields) for fields in self._from["history"]] if self._from else []
        self.metrics_log = MetricsLog(self.folder, past, tensorboard)
        writer = CheckpointWriter(self.folder, minutes)
        if compile_model:
            self.model.compile()
        pixels, labels = self._pixels(), torch.from_numpy(self.data.slices.labels)
        first = self._from["stage"] if self._from else 0
        for index, (name, stage) in enumerate(self.stages):
            if index >= first:
                self._run_stage(index, name, stage, pixels, labels, derive(seed, name), stop, writer)
        self.metrics_log.close()
        return predict(self.model, self._side(pixels, labels, "validation", 0))

    def _run_stage(
        self,
        index: int,
        name: str,
        stage: Stage,
        pixels: torch.Tensor,
        labels: torch.Tensor,
        seed: int,
        stop: StopRequest,
        writer: CheckpointWriter,
    ) -> None:
        recipe, compute = self.recipe, self.compute
        trained = head_of(self.model) if name == "head" else self.model
        optimizer = make_optimizer(
            recipe.optimizer,
            trained.parameters(),
            learning_rate=stage.learning_rate,
            weight_decay=recipe.weight_decay,
            momentum=recipe.momentum,
        )
        fp16 = compute.amp is torch.float16
        state = StageState(trained, optimizer, device_type=compute.device.type, fp16=fp16, ema=recipe.ema)
        if self._from and self._from["stage"] == index:
            if self._from["state"] is None:  # of a finished run
                by = "loss" if recipe.keep == "last" else recipe.keep
                past = [getattr(one, f"validation_{by}") for one in self.metrics_log.epochs if one.stage == name]
                state.begin_after(past, by == "loss", recipe.keep != "last")
            else:
                state.load_state_dict(self._from["state"])
        training = self._side(pixels, labels, "training", seed, stage.augment)
        validation = self._side(pixels, labels, self._selection_side, seed)
        model = self.model
        if name == "head" and not stage.augment and not recipe.mixup and state.epoch <= stage.epochs:
            # Without augmentation and MixUp the frozen backbone returns the same features in every epoch.
            if self.processes.leader:
                logger.info("head: caching the features of the frozen backbone, then training the head on them")
            training, validation = self._features(training, seed), self._features(validation, seed)
            model = trained
        self.progress.begin(name, stage.epochs, len(training))
        run_stage(
            name,
            stage,
            model,
            trained,
            state,
            training,
            validation,
            objective=Objective(
                class_weights(labels[training.chosen], len(self.data.classes))
                if recipe.imbalance == "weights"
                else None,
                recipe.label_smoothing,
                recipe.clip_norm,
                compute.amp,
            ),
            hooks=self._hooks(index, state, stop, writer),
            keep=recipe.keep,
            patience=recipe.patience,
        )

    @property
    def _selection_side(self) -> str:
        """The part of the split on which epochs are measured. If epochs are selected, it is not the validation part,
        whose metrics are reported."""
        return "selection" if len(self.data.split.selection) else "validation"

    def _hooks(self, index: int, state: StageState, stop: StopRequest, writer: CheckpointWriter) -> Hooks:
        groups, unit = self.data.groups[getattr(self.data.split, self._selection_side)], self.data.who.unit

        def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
            found = figures(logits, labels, groups, self.data.classes, unit=unit)
            loss = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))
            names = ("accuracy", "balanced_accuracy", "patient_accuracy")
            return {"loss": loss, **{name: float(found[name]) for name in names if name in found}}

        def checkpoint() -> None:
            writer.write(
                {
                    "model_state_dict": self.model.state_dict(),
                    "stage": index,
                    "state": state.state_dict(),
                    "history": [asdict(epoch) for epoch in self.metrics_log.epochs],
                    "digest": self.data.digest,
                    "labels": list(self.data.classes.names),
                    "start": self._start,
                }
            )

        def on_epoch(epoch: Epoch) -> None:
            self.metrics_log.add(epoch)
            self.progress.epoch(epoch)

        return Hooks(
            measure=measure,
            on_step=self.progress.step,
            on_epoch=on_epoch,
            checkpoint=checkpoint,
            due=writer.due,
            last_good=writer.last,
            stop=lambda: stop.requested,
            worthwhile=writer.worthwhile,
        )

    def _side(self, inputs: torch.Tensor, labels: torch.Tensor, side: str, seed: int, augment: bool = False) -> Batches:
        """Batches of one part of the split."""
        return Batches(
            inputs,
            labels,
            self.spec,
            self.recipe.batch_size,
            chosen=torch.from_numpy(getattr(self.data.split, side)),
            seed=seed,
            augment=augment,
            balanced=side == "training" and self.recipe.imbalance == "sampling",
            mixup=self.recipe.mixup if side == "training" else 0.0,
            processes=self.processes,
            device=self.compute.device,
        )

    def _features(self, side: Batches, seed: int) -> Batches:
        """Batches of the backbone features of the same slices."""
        return Batches(
            backbone_features(self.model, side, self.compute.amp),
            side.labels[side.chosen],
            None,
            side.batch_size,
            seed=seed,
            balanced=side.balanced,
            processes=self.processes,
            device=self.compute.device,
        )

    def _pixels(self) -> torch.Tensor:
        """The decoded slices, moved to the GPU if they take little of its memory."""
        pixels = torch.from_numpy(self.data.slices.pixels)
        if self.compute.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.compute.device)
            if pixels.nbytes < MOVED_SHARE * free:
                return pixels.to(self.compute.device)
        return pixels


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """(classes,) float32, inversely proportional to class frequency ("balanced" in scikit-learn); absent classes 0."""
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, counts.sum() / (counts > 0).sum() / counts, 0.0)
