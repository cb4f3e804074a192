"""What a run writes and how its options reach the loop."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import FOUR_STAGES
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.__main__ import main
from stageproof.train.data.cache import Cache, prepare_once
from stageproof.train.data.dataset import prepare
from stageproof.train.data.decode import safe_loader
from stageproof.train.distributed.process_group import ProcessGroup
from stageproof.train.engine import session
from stageproof.train.engine.session import class_weights
from stageproof.train.reports.charts.training import draw_curves, plot_confusion, plot_curves
from stageproof.train.runs.metrics_log import Epoch, MetricsLog

SPEC = InputSpec(32, 32, 1, (0.0,), (1.0,))


def epoch(number: int, stage: str = "full", loss: float = 1.0) -> Epoch:
    return Epoch(stage, number, loss, 0.5, 1.1, 0.45, 0.4, 0.3, 1e-3, 100.0, 2.0)


def test_without_augmentation_the_frozen_backbone_looks_at_each_slice_once(few_slices, tmp_path, monkeypatch, capsys):
    seen, trained_on = [], []
    look, run = session.backbone_features, session.run_stage

    def looking(model, side, amp):
        seen.extend(side.chosen.tolist())
        return look(model, side, amp)

    def running(name, stage, model, *rest, **options):
        trained_on.append((name, type(model).__name__))
        return run(name, stage, model, *rest, **options)

    monkeypatch.setattr(session, "backbone_features", looking)
    monkeypatch.setattr(session, "run_stage", running)
    words = ["--data", str(few_slices), "--image-size", "32", "--precision", "fp32", "--device", "cpu"]
    out = tmp_path / "a"
    assert main([*words, "--head.epochs", "10", "--full.epochs", "0", "--out", str(out)]) == 0
    assert sorted(seen) == list(range(40))
    assert trained_on == [("head", "Sequential"), ("full", "ResNet")]
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 10
    assert "head: caching the features of the frozen backbone" in capsys.readouterr().err


def test_every_option_at_once(few_slices, tmp_path, capsys):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    pytest.importorskip("codecarbon", reason="needs the extra energy")
    words = ["--data", str(few_slices), "--recipe", "resnet34-gray", "--image-size", "32", "--fold", "1/5"]
    words += ["--imbalance", "sampling", "--label-smoothing", "0.1", "--ema", "0.9", "--keep", "balanced_accuracy"]
    words += ["--patience", "1", "--full.epochs", "3", "--full.schedule", "cosine", "--full.warmup", "0.2"]
    words += ["--full.augment", "--optimizer", "adamw", "--clip-norm", "1", "--full.learning-rate", "1e-4"]
    words += ["--tensorboard", "--energy", "--country", "DEU", "--cache-limit", "0", "--precision", "bf16", "--json"]
    out = tmp_path / "a"
    assert main([*words, "--out", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["run"] == str(out)
    record = json.loads((out / "run.json").read_text())
    assert record["arithmetic"] == "bfloat16"
    assert record["recipe"]["keep"] == "balanced_accuracy"
    assert record["energy"]["energy_kwh"] > 0
    assert record["energy"]["country"] == "DEU"
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    best = max(line["validation_balanced_accuracy"] for line in lines)
    assert 2 <= len(lines) <= 3
    assert record["metrics"]["balanced_accuracy"] == pytest.approx(best, abs=0.15)  # measured again, in float32
    assert list((out / "tensorboard").iterdir())
    for name in ("curves.png", "confusion.png"):
        with Image.open(out / name) as image:
            assert image.format == "PNG"
    links = re.findall(r'href="([^"]+)"', (out / "index.html").read_text())
    assert links == ["curves.png", "confusion.png", "run.json", "metrics.jsonl", "model.safetensors", "split.csv"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch-size", "1"], "--batch-size is 1, expected 2 or more"),
        (["--label-smoothing", "1"], "--label-smoothing is 1, expected 0 or more and below 1"),
        (["--ema", "-0.1"], "--ema is -0.1"),
        (["--full.learning-rate", "0"], "--full.learning-rate is 0, expected more than 0"),
        (["--head.epochs", "-1"], "--head.epochs is -1"),
        (["--full.warmup", "1.5"], "--full.warmup is 1.5"),
        (["--max-unreadable", "5"], "--max-unreadable is 5, expected between 0 and 1"),
        (["--country", "Germany"], "--country is 'Germany', expected an ISO 3166 alpha-3 code"),
        (["--recipe", "resnet34-gray", "--normalise", "imagenet"], "--normalise imagenet needs 3 channels"),
    ],
)
def test_numbers_that_make_no_sense(tmp_path, capsys, words, message):
    assert main([*words, "--out", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"InputError: {message}")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_class_weights_make_classes_weigh_alike():
    labels = torch.tensor([0] * 80 + [1] * 15 + [3] * 5)
    weights = class_weights(labels, 4)
    assert weights.dtype == torch.float32
    totals = weights * torch.bincount(labels, minlength=4)
    assert totals[[0, 1, 3]].tolist() == pytest.approx([100 / 3] * 3)
    assert weights[2] == 0.0


def test_the_journal_takes_back_what_was_written_after_the_checkpoint(tmp_path):
    metrics_log = MetricsLog(tmp_path)
    for number in (1, 2, 3):
        metrics_log.add(epoch(number))
    MetricsLog(tmp_path, [epoch(1)]).add(epoch(2, loss=0.5))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [asdict(epoch(1)), asdict(epoch(2, loss=0.5))]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_tensorboard_gets_every_figure(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics_log = MetricsLog(tmp_path, tensorboard=True)
    metrics_log.add(epoch(1, loss=0.75))
    metrics_log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Scalars("full/loss")[0].value == 0.75
    assert "full/validation_patient_accuracy" in events.Tags()["scalars"]


@pytest.mark.parametrize("count", [1, 2, 4, 13, 90])
def test_the_axis_of_epochs_shows_whole_epochs_and_none_that_was_not_trained(count):
    axes = Figure().subplots()
    draw_curves(axes, [epoch(1, "head"), *(epoch(number) for number in range(1, count))], "loss")
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == int(tick) and 1 <= tick <= count for tick in ticks)
    assert axes.get_ylabel() == "loss (cross-entropy)"


def test_a_confusion_matrix_says_true_and_predicted(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    plot_confusion(np.array([0, 1]), np.array([0, 2]), FOUR_STAGES, tmp_path / "confusion.png")
    (axes,) = drawn[0].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_pictures(tmp_path):
    plot_curves([epoch(1, "head"), epoch(1), epoch(2)], tmp_path / "curves.png")
    plot_curves([], tmp_path / "empty.png")
    predicted, labels = np.array([0, 1, 2, 3, 0]), np.array([0, 1, 2, 3, 3])
    plot_confusion(predicted, labels, FOUR_STAGES, tmp_path / "right.png")
    plot_confusion(labels[::-1], labels, FOUR_STAGES, tmp_path / "wrong.png")
    pictures = {}
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            pictures[path.stem] = np.asarray(image.convert("L"))
    assert pictures["curves"].std() > 1
    assert not np.array_equal(pictures["right"], pictures["wrong"])


def test_the_cache_is_compact_and_the_same_in_memory_and_in_a_file(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory, _ = safe_loader(phantoms, SPEC)
    cache = Cache(limit=1000, shared=False)
    disk, _ = safe_loader(phantoms, SPEC, allocate=cache.allocate)
    assert memory.pixels.nbytes == disk.pixels.nbytes == 96 * 32 * 32
    assert isinstance(disk.pixels, np.memmap)
    assert cache.path.stat().st_size == 96 * 32 * 32
    assert np.array_equal(memory.pixels, disk.pixels)
    cache.release()
    assert list(tmp_path.iterdir()) == []  # nothing is left behind, even by a run that is killed later
    assert np.array_equal(memory.pixels, disk.pixels)
    assert not isinstance(Cache(limit=1e9, shared=False).allocate((4, 4)), np.memmap)
    shared = Cache(limit=1e9, shared=True)
    assert isinstance(shared.allocate((4, 4)), np.memmap)
    shared.release()


def test_a_cache_that_does_not_fit_the_disk():
    with pytest.raises(DatasetError, match=r"1000000\.0 GB of decoded slices do not fit .* raise --cache-limit"):
        Cache(limit=0, shared=False).allocate((10**15,))


def test_preparing_leaves_no_file_when_the_data_is_bad(few_slices, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(allocate):
        allocate((10, 10))
        raise DatasetError("no good")

    with pytest.raises(DatasetError):
        prepare_once(ProcessGroup(), 0, broken)
    assert list(tmp_path.iterdir()) == []
    told = {"max_unreadable": 0.05, "split": "patient", "fold": 0, "folds": 5, "seed": 0}
    data = prepare_once(ProcessGroup(), 0, lambda allocate: prepare(few_slices, SPEC, **told, allocate=allocate))
    assert isinstance(data.slices.pixels, np.memmap)
    assert list(tmp_path.iterdir()) == []


LARGE = """
import resource, sys
import numpy as np
from runtime.labels import FOUR_STAGES
from runtime.preprocess import InputSpec
from train.data.decode import safe_loader
from train.data.phantom.slices import draw_slice, encode
from train.data.samples import Samples

image = encode(draw_slice(0, 0, 0.5), "png")
count = 40_000
labels = np.zeros(count, np.int64)
samples = Samples([image] * count, labels, [str(i) for i in range(count)], labels, "many", classes=FOUR_STAGES)
spec = InputSpec(128, 128, 1, (0.0,), (1.0,))
safe_loader(samples.select(np.arange(8)), spec)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
slices, _ = safe_loader(samples, spec, thumbnails=False)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(slices.pixels.nbytes + slices.thumbnails.nbytes, (peak - before) * 1024)
"""


@pytest.mark.slow
def test_forty_thousand_slices_take_little_memory():
    done = subprocess.run([sys.executable, "-c", LARGE], capture_output=True, text=True, check=True)
    kept, peak = map(int, done.stdout.split())
    assert kept <= 0.8e9
    assert peak <= 0.8e9


@pytest.mark.slow
def test_compiled_it_trains_the_same_weights_by_name(few_slices, tmp_path):
    words = ["--data", str(few_slices), "--recipe", "resnet34-gray", "--image-size", "32", "--fold", "1/5"]
    assert main([*words, "--full.epochs", "1", "--compile", "--out", str(tmp_path / "a")]) == 0
    from stageproof.train.foreign.weight_files import read_state
    from stageproof.train.networks import build
    from stageproof.train.runs.directory import load_weights

    load_weights(build("resnet34-gray", 4), read_state(tmp_path / "a" / "model.safetensors"), "a")
