"""Batches: the pixels that prediction sees, every slice once, the same whoever computes them."""

from __future__ import annotations

import sys
from itertools import chain

import numpy as np
import pytest
import torch
from torch.nn import functional

from stageproof.runtime.preprocess import InputSpec, normalise
from stageproof.train.data.batches import Batches, _grid, augmented, channel_statistics, normalised
from stageproof.train.distributed.process_group import ProcessGroup

RNG = np.random.default_rng(5)
GREY = InputSpec(20, 24, 1, (0.28,), (0.31,))
COLOUR = InputSpec(20, 24, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def make(count: int, batch_size: int, **options) -> Batches:
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 1, 20, 24)).copy()
    labels = torch.arange(count) % 4
    return Batches(torch.from_numpy(pixels), labels, GREY, batch_size, **options)


def whose(inputs: torch.Tensor) -> list[int]:
    """Which of `make`'s slices these are."""
    return ((inputs[:, 0, 0, 0] * GREY.std[0] + GREY.mean[0]) * 255).round().int().tolist()


@pytest.mark.parametrize("spec", [GREY, COLOUR])
def test_normalised_pixels_are_bit_for_bit_those_of_prediction(spec):
    shape = (6, 20, 24) if spec is GREY else (6, 20, 24, 3)
    pixels = RNG.integers(0, 256, shape, np.uint8)
    expected = np.stack([normalise(image, spec) for image in pixels])
    stacked = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2).copy()
    batches = Batches(torch.from_numpy(stacked), torch.zeros(6, dtype=torch.int64), spec, 4)
    got = torch.cat([batch.inputs for batch in batches.in_order()])
    assert np.array_equal(got.numpy(), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_grey_level_is_normalised_bit_for_bit_as_for_prediction(channels):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for _ in range(50):
        mean, std = RNG.random(channels), RNG.random(channels) + 0.01
        spec = InputSpec(16, 16, channels, tuple(mean.tolist()), tuple(std.tolist()))
        batches = Batches(torch.from_numpy(levels[:, None]), torch.zeros(1, dtype=torch.int64), spec, 1)
        assert np.array_equal(next(batches.in_order()).inputs[0].numpy(), normalise(levels[0], spec))


def test_training_and_prediction_normalise_by_one_function(monkeypatch):
    """Plant a fault in it: both have it."""

    def planted(scaled, mean, std, between, out, arrays=np):
        arrays.add(scaled, mean, out=out)

    for module in ("stageproof.runtime.preprocess", "stageproof.train.data.batches"):
        monkeypatch.setattr(sys.modules[module], "standardise", planted)
    pixels = RNG.integers(0, 256, (2, 20, 24), np.uint8)
    batches = Batches(torch.from_numpy(pixels[:, None]), torch.zeros(2, dtype=torch.int64), GREY, 2)
    expected = pixels[:, None].astype(np.float32) / np.float32(255) + np.float32(GREY.mean[0])
    assert np.array_equal(next(batches.in_order()).inputs.numpy(), expected)
    assert np.array_equal(np.stack([normalise(image, GREY) for image in pixels]), expected)


def test_a_grey_slice_is_repeated_for_a_network_of_three_channels_as_prediction_does():
    pixels = RNG.integers(0, 256, (2, 20, 24), np.uint8)
    got = normalised(torch.from_numpy(pixels[:, None]).float().div_(255), COLOUR)
    assert np.array_equal(got.numpy(), np.stack([normalise(image, COLOUR) for image in pixels]))


@pytest.mark.parametrize(("count", "batch_size"), [(64, 8), (65, 8), (9, 8), (17, 8), (5, 8), (100, 32)])
def test_an_epoch_holds_every_slice_once_in_batches_of_nearly_one_size(count, batch_size):
    batches = make(count, batch_size)
    parts = [whose(batch.inputs) for batch in batches.epoch(1)]
    assert sorted(chain.from_iterable(parts)) == list(range(count))
    assert len(parts) == len(batches) == -(-count // batch_size)
    sizes = {len(part) for part in parts}
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1


def test_labels_stay_with_their_slices():
    for batch in make(40, 8).epoch(3):
        assert [index % 4 for index in whose(batch.inputs)] == batch.labels.tolist() == batch.all_labels.tolist()


def test_every_epoch_has_its_own_order_and_gives_it_again():
    batches = make(40, 8)
    first, second = ([whose(batch.inputs) for batch in batches.epoch(epoch)] for epoch in (1, 2))
    assert first != second
    assert [whose(batch.inputs) for batch in make(40, 8).epoch(1)] == first
    assert [whose(batch.inputs) for batch in make(40, 8, seed=1).epoch(1)] != first
    assert [whose(batch.inputs) for batch in batches.epoch(1, start=3)] == first[3:]


@pytest.mark.parametrize("size", [2, 3])
def test_processes_together_hold_each_batch_once_and_in_place(size):
    alone = [(batch.inputs, batch.all_labels) for batch in make(43, 8, augment=True).epoch(2)]
    each = [list(make(43, 8, augment=True, processes=ProcessGroup(rank, size)).epoch(2)) for rank in range(size)]
    for step, (inputs, labels) in enumerate(alone):
        parts = [mine[step] for mine in each]
        assert torch.equal(torch.cat([part.inputs for part in parts]), inputs)
        assert all(torch.equal(part.all_labels, labels) for part in parts)
        assert [part.rows.start for part in parts[1:]] == [part.rows.stop for part in parts[:-1]]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_validation_holds_every_slice_once_over_all_processes(size):
    chosen = torch.tensor([4, 2, 30, 31, 7, 8, 9])
    parts = [make(40, 4, chosen=chosen, processes=ProcessGroup(rank, size)).in_order() for rank in range(size)]
    assert [index for part in parts for batch in part for index in whose(batch.inputs)] == chosen.tolist()


def test_balanced_sampling_draws_every_class_alike():
    labels = torch.tensor([0] * 180 + [1] * 15 + [2] * 4 + [3])
    pixels = torch.zeros(200, 1, 2, 2, dtype=torch.uint8)
    batches = Batches(pixels, labels, InputSpec(2, 2, 1, (0.0,), (1.0,)), 20, balanced=True)
    drawn = torch.cat([batch.labels for epoch in range(20) for batch in batches.epoch(epoch)])
    assert len(drawn) == 4000
    assert torch.bincount(drawn).min() > 850
    assert torch.bincount(drawn).max() < 1150


def test_augmentation_follows_from_its_seeds_alone():
    pixels = torch.from_numpy(RNG.random((5, 1, 32, 32), np.float32))
    first = augmented(pixels, [1, 2, 3, 4, 5])
    assert torch.equal(augmented(pixels, [1, 2, 3, 4, 5]), first)
    assert torch.equal(augmented(pixels[3:], [4, 5]), first[3:])
    other = augmented(pixels, [1, 2, 9, 4, 5])
    assert not torch.equal(other[2], first[2])
    assert torch.equal(other[3], first[3])


def test_augmentation_changes_every_slice_and_stays_in_range():
    pixels = torch.from_numpy(RNG.random((32, 3, 40, 40), np.float32))
    changed = augmented(pixels, list(range(32)))
    assert changed.shape == pixels.shape
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert ((changed - pixels).abs().mean((1, 2, 3)) > 0.02).all()


def test_augmentation_flips_left_and_right_and_never_up_and_down():
    ramp = torch.linspace(0, 1, 64)
    across, down = ramp.expand(1, 64, 64), ramp[:, None].expand(1, 64, 64)
    seeds = list(range(40))
    sideways = augmented(across.expand(40, 1, 64, 64), seeds)[:, 0, 20:44]
    upright = augmented(down.expand(40, 1, 64, 64), seeds)[:, 0, :, 20:44]
    mirrored = sideways[:, :, 40:50].mean((1, 2)) < sideways[:, :, 14:24].mean((1, 2))
    assert 8 < int(mirrored.sum()) < 32
    assert (upright[:, 40:50].mean((1, 2)) > upright[:, 14:24].mean((1, 2))).all()


def test_without_augmentation_every_epoch_shows_the_same_pixels():
    batches = make(16, 4)
    for epoch in (1, 2):
        for batch in batches.epoch(epoch):
            index = whose(batch.inputs)
            plain = normalised(batches.inputs[index].float().div(255), GREY)
            assert torch.equal(batch.inputs, plain)


def test_statistics_are_of_the_chosen_slices_alone():
    pixels = RNG.integers(0, 256, (10, 1, 8, 8), np.uint8)
    chosen = np.array([1, 3, 4])
    mean, std = channel_statistics(pixels, chosen, 1)
    assert mean == pytest.approx([(pixels[chosen] / 255).mean()])
    assert std == pytest.approx([(pixels[chosen] / 255).std()])
    assert channel_statistics(pixels, chosen, 3) == (mean * 3, std * 3)
    assert channel_statistics(np.zeros_like(pixels), chosen, 1) == ((0.0,), (1.0,))
    colour = RNG.integers(0, 256, (4, 3, 8, 8), np.uint8)
    assert channel_statistics(colour, np.arange(4), 3)[0] == pytest.approx((colour / 255).mean((0, 2, 3)))


@pytest.mark.parametrize("shape", [(64, 64), (5, 9), (1, 2)])
def test_the_sampling_grid_is_torchs_affine_grid(shape):
    theta = torch.randn(3, 2, 3, generator=torch.Generator().manual_seed(1))
    expected = functional.affine_grid(theta, [3, 1, *shape], align_corners=False)
    torch.testing.assert_close(_grid(theta, *shape), expected, rtol=0, atol=1e-6)
