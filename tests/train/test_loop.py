"""The loop: what is frozen stays, what diverges stops, and every option does what it says."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from stageproof.runtime.errors import TrainingError
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.batches import Batches
from stageproof.train.engine.features import backbone_features
from stageproof.train.engine.hooks import Hooks
from stageproof.train.engine.loop import Interrupted, Objective, predict, run_stage
from stageproof.train.engine.optimizer import clip_gradients, make_optimizer, rate_factor
from stageproof.train.engine.stage import StageState
from stageproof.train.recipes import Stage
from stageproof.train.seeds import SeededDropout, derive, place_dropouts, seed_dropouts

SPEC = InputSpec(12, 12, 1, (0.5,), (0.25,))


class Small(nn.Module):
    """A backbone with BatchNorm under a head with dropout: 12 × 12 grey → 4."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
        self.fc = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 4))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.flatten(self.body(images), 1))


def small(seed: int = 0) -> Small:
    torch.manual_seed(seed)
    model = Small()
    seed_dropouts(model)
    return model


def slices(count: int = 48, **options) -> Batches:
    rng = np.random.default_rng(1)
    labels = np.arange(count) % 4
    pixels = np.clip(rng.normal(60 + 40 * labels[:, None, None, None], 25, (count, 1, 12, 12)), 0, 255)
    return Batches(
        torch.from_numpy(pixels.astype(np.uint8)), torch.from_numpy(labels), SPEC, options.pop("batch", 8), **options
    )


class Record:
    """Everything the loop reports, and what it is answered."""

    def __init__(self, stop_at: int = 0, due_at: int = 0) -> None:
        self.steps, self.epochs, self.checkpoints = [], [], []
        self.stop_at, self.due_at, self.state = stop_at, due_at, None
        self.asked = 0
        self.figures: list[dict[str, float]] = []

    def stop(self) -> bool:
        self.asked += 1
        return bool(self.stop_at) and self.asked >= self.stop_at

    def hooks(self) -> Hooks:
        def measure(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
            if self.figures:
                return self.figures.pop(0)
            right = float((logits.argmax(1) == labels).mean())
            loss = float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)))
            return {"loss": loss, "accuracy": right, "balanced_accuracy": right, "patient_accuracy": right}

        return Hooks(
            measure=measure,
            on_step=self.steps.append,
            on_epoch=self.epochs.append,
            checkpoint=lambda: self.checkpoints.append((self.state.epoch, self.state.step)),
            due=lambda: bool(self.due_at) and self.state.step == self.due_at,
            last_good=lambda: "runs/.a.partial/checkpoint.pt",
            stop=self.stop,
        )


def train(model, stage=None, training=None, record=None, trained=None, state=None, objective=None, **options):
    """A stage on `model`; the state it ends in."""
    stage, training, record = stage or Stage(2, 1e-2), training or slices(), record or Record()
    trained = trained or model
    if state is None:
        kind = options.pop("optimizer", "adamw")
        optimizer = make_optimizer(
            kind, trained.parameters(), learning_rate=1, weight_decay=options.pop("decay", 0.01), momentum=0.9
        )
        state = StageState(trained, optimizer, device_type="cpu", fp16=False, ema=options.pop("ema", 0.0))
    record.state = state
    run_stage(
        "full",
        stage,
        model,
        trained,
        state,
        training,
        slices(24),
        objective=objective or Objective(),
        hooks=record.hooks(),
        **options,
    )
    return state


def same(first: nn.Module | dict, second: nn.Module | dict) -> bool:
    first, second = (m if isinstance(m, dict) else m.state_dict() for m in (first, second))
    return all(torch.equal(first[name], second[name]) for name in second)


def test_a_stage_learns():
    record = Record()
    model = small()
    train(model, Stage(15, 1e-2), record=record)
    assert record.epochs[0].loss > 1.0
    assert record.epochs[-1].loss < 0.7 * record.epochs[0].loss
    assert record.epochs[-1].validation_accuracy > 0.6
    assert [epoch.epoch for epoch in record.epochs] == list(range(1, 16))
    assert len(record.steps) == 15 * 6
    logits, labels = predict(model, slices(24))
    assert float((logits.argmax(1) == labels).mean()) == record.epochs[-1].validation_accuracy


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_step_is_the_textbook_one(optimizer):
    model, reference = small(), small()
    model.fc[2].p = reference.fc[2].p = 0.0
    train(model, Stage(1, 0.05, augment=False), slices(16, batch=8), optimizer=optimizer, decay=0.1)
    optim = (
        torch.optim.AdamW(reference.parameters(), lr=0.05, weight_decay=0.1)
        if optimizer == "adamw"
        else torch.optim.SGD(reference.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    )
    for batch in slices(16, batch=8).epoch(1):
        optim.zero_grad()
        F.cross_entropy(reference(batch.inputs), batch.labels).backward()
        optim.step()
    for name, tensor in reference.state_dict().items():
        # A bias in front of BatchNorm has no gradient but rounding, which AdamW brings to full size.
        if name != "body.0.bias":
            torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)


def test_a_frozen_backbone_keeps_its_weights_and_its_batchnorm_statistics():
    model = small()
    before = copy.deepcopy(model.state_dict())
    train(model, Stage(2, 1e-2), slices(augment=True), trained=model.fc)
    after = model.state_dict()
    backbone = [name for name in before if name.startswith("body")]
    assert "body.1.running_mean" in backbone
    assert "body.1.num_batches_tracked" in backbone
    assert all(torch.equal(before[name], after[name]) for name in backbone)
    assert not torch.equal(before["fc.0.weight"], after["fc.0.weight"])


def test_a_whole_model_moves_them():
    model = small()
    before = copy.deepcopy(model.state_dict())
    train(model)
    assert all(not torch.equal(before[name], model.state_dict()[name]) for name in before)


def test_the_head_learns_the_same_from_the_backbones_features_as_through_the_backbone():
    through, cached = small(), small()
    train(through, Stage(3, 1e-2, augment=False), trained=through.fc)
    side = slices()
    features = Batches(backbone_features(cached, side, None), side.labels, None, 8)
    assert features.inputs.shape == (48, 24)
    optimizer = make_optimizer("adamw", cached.fc.parameters(), learning_rate=1, weight_decay=0.01, momentum=0.9)
    state = StageState(cached.fc, optimizer, device_type="cpu", fp16=False, ema=0.0)
    record = Record()
    record.state = state
    run_stage(
        "head",
        Stage(3, 1e-2),
        cached.fc,
        cached.fc,
        state,
        features,
        features,
        objective=Objective(),
        hooks=record.hooks(),
    )
    for name, tensor in through.fc.state_dict().items():
        torch.testing.assert_close(cached.fc.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)


def test_features_are_what_the_head_is_given(phantoms):
    model, side = small(), slices(20)
    features = backbone_features(model, side, None)
    model.eval()
    logits, _ = predict(model, side)
    assert np.allclose(model.fc(features).detach().numpy(), logits, atol=1e-6)


def test_a_loss_that_is_not_finite_stops_with_where_it_happened():
    model = small()
    with torch.no_grad():
        model.fc[3].bias[0] = math.inf
    with pytest.raises(TrainingError) as caught:
        train(model, Stage(1, 0.25))
    message = str(caught.value)
    assert "The loss is nan at step 1 of epoch 1, stage full, learning rate 2.50e-01" in message
    assert "--precision fp32" in message
    assert "Last checkpoint: runs/.a.partial/checkpoint.pt" in message


@pytest.mark.parametrize("stop_at", [1, 3, 8])
def test_asked_to_stop_it_finishes_the_step_writes_a_checkpoint_and_says_so(stop_at):
    record, model = Record(stop_at=stop_at), small()
    with pytest.raises(Interrupted):
        train(model, Stage(4, 1e-2), record=record)
    epoch, step = record.checkpoints[-1]
    assert (epoch - 1) * 6 + step in (stop_at, stop_at + 1)
    assert len(record.steps) == (epoch - 1) * 6 + step  # the figures of every step taken are in the checkpoint


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"keep": "loss"}, {"optimizer": "sgd"}, {"mixup": 0.4}])
@pytest.mark.parametrize("stop_at", [2, 6, 9])
def test_stopped_and_gone_on_with_is_bit_for_bit_as_never_stopped(options, stop_at):
    stage, side = Stage(3, 1e-2, "one-cycle"), slices(augment=True, mixup=options.get("mixup", 0.0))
    options = {name: value for name, value in options.items() if name != "mixup"}
    straight = small()
    told = Record()
    train(straight, stage, side, told, **options)
    model, record = small(), Record(stop_at=stop_at)
    kept = {}
    hooks_of = record.hooks

    def keeping() -> Hooks:
        def checkpoint() -> None:
            kept["model"] = copy.deepcopy(model.state_dict())
            kept["state"] = copy.deepcopy(record.state.state_dict())

        return replace(hooks_of(), checkpoint=checkpoint)

    record.hooks = keeping
    with pytest.raises(Interrupted):
        train(model, stage, side, record, **options)
    again, rest = small(seed=7), Record()
    again.load_state_dict(kept["model"])
    optimizer = make_optimizer(
        options.get("optimizer", "adamw"), again.parameters(), learning_rate=1, weight_decay=0.01, momentum=0.9
    )
    state = StageState(again, optimizer, device_type="cpu", fp16=False, ema=options.get("ema", 0.0))
    state.load_state_dict(kept["state"])
    keep = {name: value for name, value in options.items() if name == "keep"}
    train(again, stage, side, rest, state=state, **keep)
    assert same(again, straight)
    figures = [(epoch.epoch, epoch.loss, epoch.accuracy, epoch.validation_loss) for epoch in told.epochs]
    resumed = [(e.epoch, e.loss, e.accuracy, e.validation_loss) for e in [*record.epochs, *rest.epochs]]
    assert resumed == figures


def test_a_checkpoint_within_an_epoch_changes_nothing():
    plain, record = small(), Record(due_at=3)
    train(plain)
    model = small()
    train(model, record=record)
    assert same(model, plain)
    assert record.checkpoints == [(1, 3), (2, 0), (2, 3), (3, 0)]


def test_a_checkpoint_after_an_epoch_is_left_out_where_it_is_not_worth_its_time():
    record = Record(due_at=3)
    hooks_of = record.hooks
    record.hooks = lambda: replace(hooks_of(), worthwhile=lambda: False)
    train(small(), record=record)
    assert record.checkpoints == [(1, 3), (2, 3)]


class Crowded(Small):
    """A device that holds four slices at a time."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.fc.training and len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(images)


def test_out_of_memory_halves_the_batch_and_keeps_the_gradient(said):
    torch.manual_seed(0)
    crowded, roomy = Crowded(), small()
    crowded.load_state_dict(roomy.state_dict())
    seed_dropouts(crowded)
    # The backbone is frozen: BatchNorm in eval mode makes the parts add up exactly.
    train(crowded, Stage(2, 1e-2), slices(batch=16), trained=crowded.fc)
    train(roomy, Stage(2, 1e-2), slices(batch=16), trained=roomy.fc)
    assert [text.split(" whose")[0] for text in said] == [
        "WARNING: Out of memory: each batch of 16 is now computed in 2 parts",
        "WARNING: Out of memory: each batch of 16 is now computed in 4 parts",
    ]
    for name, tensor in roomy.state_dict().items():
        torch.testing.assert_close(crowded.state_dict()[name], tensor, rtol=1e-5, atol=1e-7)


def test_out_of_memory_with_a_single_slice_stops():
    class Full(Small):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(TrainingError, match=r"Out of memory with 1 slices on each device\. Lower --batch-size"):
        train(Full())


def test_the_best_epoch_is_kept_and_patience_ends_the_stage():
    def figures(loss: float) -> dict[str, float]:
        return {"loss": loss, "accuracy": 0.5, "balanced_accuracy": 0.5, "patient_accuracy": 0.5}

    record, model = Record(), small()
    record.figures = [figures(loss) for loss in (1.0, 0.8, 0.9, 0.85, 0.1)]
    train(model, Stage(5, 1e-2), record=record, keep="loss", patience=2)
    assert len(record.epochs) == 4
    best = small()
    train(best, Stage(5, 1e-2), record=Record(), keep="last")  # the same steps, all five epochs
    second = small()
    train(second, Stage(2, 1e-2))
    assert same(model, second)
    assert not same(model, best)


def test_a_larger_accuracy_is_better():
    record, model = Record(), small()
    row = {"loss": 1.0, "balanced_accuracy": 0.5, "patient_accuracy": 0.5}
    record.figures = [{**row, "accuracy": accuracy} for accuracy in (0.5, 0.7, 0.6)]
    train(model, Stage(3, 1e-2), record=record, keep="accuracy")
    second = small()
    train(second, Stage(2, 1e-2))
    assert same(model, second)


def test_the_moving_average_is_what_is_validated_and_kept():
    record, model, plain = Record(), small(), small()
    train(model, record=record, ema=0.9)
    train(plain)
    assert not same(model, plain)
    reference, steps = small(), 0
    stepwise = slices(batch=8)
    average = {name: tensor.clone() for name, tensor in small().state_dict().items()}
    optim = make_optimizer("adamw", reference.parameters(), learning_rate=1e-2, weight_decay=0.01, momentum=0)
    for epoch in (1, 2):
        for index, batch in enumerate(stepwise.epoch(epoch)):
            reference.train()
            place_dropouts(reference, derive(0, "dropout", epoch, index), 8, slice(0, 8))
            optim.zero_grad()
            F.cross_entropy(reference(batch.inputs), batch.labels).backward()
            optim.step()
            steps += 1
            decay = min(0.9, (1 + steps) / (10 + steps))
            for name, tensor in reference.state_dict().items():
                if tensor.is_floating_point():
                    average[name] = decay * average[name] + (1 - decay) * tensor
    for name, tensor in average.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
    logits, labels = predict(model, slices(24))
    assert float((logits.argmax(1) == labels).mean()) == record.epochs[-1].validation_accuracy


def test_class_weights_and_smoothing_are_those_of_torch():
    model, reference = small(), small()
    model.fc[2].p = reference.fc[2].p = 0.0
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0])
    record = Record()
    train(
        model,
        Stage(1, 1e-2),
        slices(8, batch=8),
        record,
        objective=Objective(class_weights=weights, label_smoothing=0.1),
    )
    batch = next(iter(slices(8, batch=8).epoch(1)))
    reference.train()
    loss = F.cross_entropy(reference(batch.inputs), batch.labels, weight=weights, label_smoothing=0.1)
    assert record.steps[0].step_loss == pytest.approx(loss.item(), rel=1e-6)


def test_gradients_are_clipped_to_the_norm():
    moved = []
    for clip in (0.0, 1e-3):
        model = small()
        before = [parameter.detach().clone() for parameter in model.parameters()]
        train(model, Stage(1, 1.0), slices(8, batch=8), optimizer="sgd", decay=0.0, objective=Objective(clip_norm=clip))
        after = [parameter.detach() for parameter in model.parameters()]
        moved.append(sum(float(((a - b) ** 2).sum()) for a, b in zip(after, before, strict=True)) ** 0.5)
    assert moved[0] > 0.01
    assert moved[1] == pytest.approx(1e-3, rel=1e-3)


def test_bf16_trains_in_the_same_loop():
    record, model = Record(), small()
    train(model, Stage(15, 1e-2), record=record, objective=Objective(amp=torch.bfloat16))
    assert record.epochs[-1].loss < 0.7 * record.epochs[0].loss
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_schedules():
    steps = 100
    level, cosine, cycle = (
        [rate_factor(name, None, step, steps) for step in range(steps)] for name in ("constant", "cosine", "one-cycle")
    )
    assert level == [1.0] * steps
    assert cosine[0] == 1.0
    assert cosine[50] == pytest.approx(0.5)
    assert 0 < cosine[-1] < 0.001
    assert cycle[0] == pytest.approx(0.04)
    assert max(cycle) == cycle[25] == 1.0
    assert cycle[:26] == sorted(cycle[:26])
    assert cycle[25:] == sorted(cycle[25:], reverse=True)
    warm = [rate_factor("constant", 0.1, step, steps) for step in range(steps)]
    assert warm[0] == pytest.approx(1 / 11)
    assert warm[9] < warm[10] == 1.0
    assert rate_factor("cosine", 0.1, 10, steps) == 1.0


def test_dropout_masks_follow_from_the_step_and_the_place_in_the_batch():
    layer = SeededDropout(0.4)
    values = torch.ones(10, 50)
    holder = nn.Sequential(layer)
    place_dropouts(holder, 3, 10, slice(0, 10))
    whole = layer(values)
    place_dropouts(holder, 3, 10, slice(4, 7))
    assert torch.equal(layer(values[4:7]), whole[4:7])
    place_dropouts(holder, 4, 10, slice(0, 10))
    assert not torch.equal(layer(values), whole)
    assert set(whole.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.6))}
    assert 0.3 < float((whole == 0).float().mean()) < 0.5
    assert torch.equal(layer.eval()(values), values)


@pytest.mark.parametrize("mode", ["row", "batch"])
def test_stochastic_depth_follows_from_the_step_and_the_place_in_the_batch(mode):
    holder = nn.Sequential(StochasticDepth(0.4, mode))
    seed_dropouts(holder)
    values = torch.ones(200, 3, 2, 2)
    place_dropouts(holder, 3, 200, slice(0, 200))
    whole = holder(values)
    place_dropouts(holder, 3, 200, slice(4, 7))
    torch.manual_seed(9)  # the global generator changes nothing
    assert torch.equal(holder(values[4:7]), whole[4:7])
    kept = {}
    for seed in range(60):
        place_dropouts(holder, seed, 200, slice(0, 200))
        kept[seed] = holder(values)[:, 0, 0, 0]
    assert set(torch.cat(list(kept.values())).unique().tolist()) == {0.0, float(torch.tensor(1 / 0.6))}
    assert 0.2 < float(torch.stack(list(kept.values())).eq(0).float().mean()) < 0.6
    assert all((len(rows.unique()) == 1) == (mode == "batch") for rows in kept.values())
    assert (whole.flatten(1).std(1) == 0).all(), "a slice is dropped whole"
    assert torch.equal(holder.eval()(values), values)


@pytest.mark.parametrize("length", [0.5, 3.0, float("inf"), float("nan")])
def test_gradients_are_clipped_bit_for_bit_as_torch_clips_them(length):
    draw = torch.Generator().manual_seed(2)
    directions = [torch.randn(shape, generator=draw) for shape in ((7, 3), (5,))]
    size = math.sqrt(sum(float(direction.square().sum()) for direction in directions))
    ours, torchs = ([nn.Parameter(torch.zeros_like(direction)) for direction in directions] for _ in range(2))
    for parameters in (ours, torchs):
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter.grad = direction * (length / size)
    clip_gradients([*ours, nn.Parameter(torch.zeros(2))], 1.0)  # one without a gradient
    nn.utils.clip_grad_norm_(torchs, 1.0)
    for our, other in zip(ours, torchs, strict=True):
        np.testing.assert_array_equal(our.grad, other.grad)
