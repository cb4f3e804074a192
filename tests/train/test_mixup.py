"""MixUp: slices and labels are mixed with the same share, in one process and in several, interrupted or not."""

from __future__ import annotations

import json

import pytest
import torch
from scipy import stats
from torch.nn import functional as F

from stageproof.train.__main__ import main
from stageproof.train.data.batches import Batches
from stageproof.train.distributed.process_group import ProcessGroup
from stageproof.train.engine.loop import Objective
from stageproof.train.recipes import Stage
from tests.train.small_networks import SMALLEST
from tests.train.test_loop import Record, same, slices, small, train

ALPHA = 0.4


def test_images_and_labels_are_mixed_with_the_same_share_and_partner():
    plain, mixed = slices(22, batch=8), slices(22, batch=8, mixup=ALPHA)
    for whole, batch in zip(plain.epoch(3), mixed.epoch(3), strict=True):
        assert batch.labels.tolist() == whole.labels.tolist()
        assert sorted(batch.partners.tolist()) == sorted(whole.labels.tolist())
        others = (batch.inputs - batch.share * whole.inputs) / (1 - batch.share)
        distance = (others[:, None] - whole.inputs[None]).abs().amax((2, 3, 4))
        partner = distance.argmin(1)
        assert sorted(partner.tolist()) == list(range(len(partner)))
        assert distance.min(1).values.max() < 1e-3
        assert torch.equal(whole.labels[partner], batch.partners)


@pytest.mark.parametrize("augment", [False, True])
def test_several_processes_mix_as_one_does(augment):
    """Partners lie in the parts of other processes too, augmented there as here."""
    whole = slices(22, batch=8, mixup=ALPHA, augment=augment, seed=5)
    ranks = [
        slices(22, batch=8, mixup=ALPHA, augment=augment, seed=5, processes=ProcessGroup(rank, 3)) for rank in range(3)
    ]
    for batch, *parts in zip(whole.epoch(2), *(rank.epoch(2) for rank in ranks), strict=True):
        assert [part.share for part in parts] == [batch.share] * 3
        assert torch.cat([part.partners for part in parts]).tolist() == batch.partners.tolist()
        torch.testing.assert_close(torch.cat([part.inputs for part in parts]), batch.inputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_follow_the_beta_distribution_and_never_repeat(alpha):
    side = Batches(torch.zeros(40, 1), torch.zeros(40, dtype=torch.int64), None, 2, mixup=alpha)
    shares = [batch.share for epoch in range(1, 21) for batch in side.epoch(epoch)]
    assert len(set(shares)) == len(shares) == 400
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    again = [batch.share for batch in side.epoch(4, 7)]
    assert again == shares[3 * 20 + 7 : 4 * 20]  # what an epoch that is resumed draws


@pytest.mark.parametrize("alpha", [1e-300, 1e-9, 100.0])
def test_extreme_alphas_give_shares(alpha):
    side = Batches(torch.ones(4, 1), torch.zeros(4, dtype=torch.int64), None, 4, mixup=alpha)
    for epoch in range(1, 50):
        (batch,) = side.epoch(epoch)
        assert 0 <= batch.share <= 1
        assert torch.equal(batch.inputs, torch.ones(4, 1))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 3.0, 0.0, 0.5])])
def test_the_loss_is_that_of_soft_labels_in_torch(weights, smoothing, share):
    torch.manual_seed(0)
    logits, labels, partners = torch.randn(9, 4), torch.arange(9) % 4, torch.arange(9).flip(0) % 4
    soft = share * F.one_hot(labels, 4) + (1 - share) * F.one_hot(partners, 4)
    expected = F.cross_entropy(logits, soft.float(), weight=weights, label_smoothing=smoothing, reduction="sum")
    found = Objective(weights, smoothing).loss(logits, labels, partners, share)
    torch.testing.assert_close(found, expected)


def test_a_step_divides_by_the_weight_of_the_mixture():
    """One step of SGD is that of the loss of soft labels, each class weighted, divided by the weight of the batch."""
    weights = torch.tensor([1.0, 3.0, 0.2, 0.5])
    side = slices(8, batch=8, mixup=ALPHA)
    (batch,) = side.epoch(1)
    model, record = small(), Record()
    model.fc[2].p = 0.0
    train(model, Stage(1, 0.1), side, record, objective=Objective(weights, 0.1))
    reference = small()
    reference.fc[2].p = 0.0
    soft = batch.share * F.one_hot(batch.labels, 4) + (1 - batch.share) * F.one_hot(batch.partners, 4)
    logits = reference.train()(batch.inputs)
    loss = F.cross_entropy(logits, soft.float(), weight=weights, label_smoothing=0.1, reduction="sum")
    assert record.steps[0].loss == pytest.approx(float(loss.detach() / (soft * weights).sum()), rel=1e-5)
    right = (soft * F.one_hot(logits.argmax(1), 4)).sum() / 8
    assert record.steps[0].accuracy == pytest.approx(float(right), rel=1e-5)


@pytest.mark.parametrize("amp", [None, torch.bfloat16])
def test_it_learns_in_full_and_in_mixed_precision(amp):
    record, model = Record(), small()
    train(model, Stage(15, 1e-2), slices(mixup=ALPHA), record, objective=Objective(amp=amp))
    assert record.epochs[-1].loss < 0.9 * record.epochs[0].loss
    assert record.epochs[-1].validation_accuracy > 0.6
    other = small()
    train(other, Stage(15, 1e-2), slices())
    assert not same(model, other)


def test_a_run_with_mixup_trains_the_head_through_the_backbone(few_slices, tmp_path, capsys):
    words = ["--data", str(few_slices), "--image-size", "32", "--precision", "fp32", "--device", "cpu"]
    words += ["--recipe", "resnet34-gray", *SMALLEST, "--fold", "1/5", "--head.epochs", "1", "--full.epochs", "0"]
    words += ["--mixup", "0.2", "--imbalance", "weights", "--label-smoothing", "0.1"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert "caching the features" not in capsys.readouterr().err
    assert json.loads((tmp_path / "a" / "run.json").read_text())["recipe"]["mixup"] == 0.2


@pytest.mark.parametrize("wrong", ["-0.1", "nan", "inf", "101"])
def test_alphas_of_no_sense(wrong, tmp_path, capsys):
    assert main(["--mixup", wrong, "--out", str(tmp_path / "a")]) == 2
    assert capsys.readouterr().err.startswith(f"InputError: --mixup is {wrong}, expected between 0 and 100")
