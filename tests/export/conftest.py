"""A run of a network whose decisions are firm and spread over all four classes, made in seconds."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

SIZE = 32


@pytest.fixture(scope="session")
def slices(tmp_path_factory) -> Path:
    """Class folders with 4 classes × 16 people × 4 phantom slices as PNG files of 64 × 64."""
    from stageproof.runtime.labels import LABELS
    from stageproof.train.data.phantom.__main__ import phantom_samples

    samples = phantom_samples(patients=16, slices=4, size=64, seed=11)
    root = tmp_path_factory.mktemp("data") / "slices"
    for index, name in enumerate(samples.names):
        file = root / LABELS[samples.labels[index]] / Path(name).name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(samples.read(index))
    return root


@pytest.fixture(scope="session")
def fit_network():
    """Function: samples, size → the published architecture, random but for a last layer fitted to the samples."""
    import torch
    from torch import nn
    from torchvision.models import resnet50

    from stageproof.export.data.comparison import preprocessed
    from stageproof.runtime.preprocess import InputSpec

    def fit(samples, size: int) -> nn.Module:
        images = torch.from_numpy(preprocessed(samples, InputSpec.imagenet(size)))
        torch.manual_seed(0)
        model = resnet50(weights=None)
        model.fc = nn.Sequential(nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 4))
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the statistics of the one batch below
                if name.endswith("bn3"):
                    nn.init.constant_(module.weight, 0.1)  # shallow, so that half precision moves little
        hidden: list[torch.Tensor] = []
        handle = model.fc[3].register_forward_pre_hook(lambda module, inputs: hidden.append(inputs[0]))
        with torch.inference_mode():
            model.train()(images)
            hidden.clear()
            model.eval()(images)
        handle.remove()
        features, middle = hidden[0] - hidden[0].mean(0), hidden[0].mean(0)
        wanted = nn.functional.one_hot(torch.from_numpy(samples.labels), 4).float() * 8 - 2
        square = features.T @ features
        weight = torch.linalg.solve(square + 1e-6 * square.trace() * torch.eye(512), features.T @ wanted)
        with torch.no_grad():
            model.fc[3].weight.copy_(weight.T)
            model.fc[3].bias.copy_(wanted.mean(0) - middle @ weight)
            for parameter in model.parameters():
                parameter.requires_grad_(False)
        return model.eval()

    return fit


@pytest.fixture(scope="session")
def network(slices, fit_network):
    """A network at 32 × 32 with firm decisions, all four classes among them."""
    from stageproof.train.data.sources.source import load_samples

    return fit_network(load_samples(slices), SIZE)


@pytest.fixture(scope="session")
def write_run():
    """Function: writes a run directory of a network at `size`, over the data at `data`; `held` tells by name and index
    which of its slices it was not trained on."""
    from stageproof.runtime.labels import LABELS
    from stageproof.runtime.preprocess import InputSpec
    from stageproof.runtime.serialization.digests import sha256_file
    from stageproof.train.runs.directory import WEIGHTS, new_run, save_weights
    from stageproof.train.runs.record import write_record

    def write(path: Path, network, samples, data: Path, size: int, held: Callable[[str, int], bool]) -> Path:
        with new_run(path) as folder:
            save_weights(network, folder)
            with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("name", "class", "patient", "side"))
                for index, (name, label) in enumerate(zip(samples.names, samples.labels, strict=True)):
                    patient = Path(name).name.split("_")[0]
                    writer.writerow((name, LABELS[label], patient, "validation" if held(name, index) else "training"))
            (folder / "MODEL_CARD.md").write_text("# A network for tests\n", encoding="utf-8")
            record = {
                "architecture": "resnet50",
                "labels": list(LABELS),
                "input": InputSpec.imagenet(size).to_dict(),
                "temperature": 1.0,
                "weights_sha256": sha256_file(folder / WEIGHTS),
                "options": {"data": str(data), "seed": 0},
                "data": {"digest": samples.digest(), "source": samples.source},
                "split": {"by": "patient"},
                "metrics": {},
                "versions": {},
            }
            write_record(record, folder)
        return path

    return write


@pytest.fixture(scope="session")
def run(network, slices, write_run, tmp_path_factory) -> Path:
    """A run directory of `network`: three quarters of `slices` on the training side, people kept together."""
    from stageproof.train.data.sources.source import load_samples

    def held(name: str, index: int) -> bool:
        return int(Path(name).name.split("_")[0][1:]) // 4 % 4 == 0

    return write_run(tmp_path_factory.mktemp("runs") / "firm", network, load_samples(slices), slices, SIZE, held)


@pytest.fixture(scope="session")
def new_job(tmp_path_factory):
    """Function: a run directory → a Job over it and its validation slices, as each format's process makes one."""
    from stageproof.export.options import Options
    from stageproof.export.parity.reference_answers import gather
    from stageproof.export.reference.context import Job
    from stageproof.export.reference.source import load_reference

    def make(run: Path) -> Job:
        options = Options(source=run, flip_tolerance=None)
        reference = load_reference(options)
        folder = tmp_path_factory.mktemp("job")
        (folder / "work").mkdir()
        return Job(options, reference, gather(options, reference), folder, folder / "work", lambda text: None)

    return make


@pytest.fixture(scope="session")
def job(run, new_job):
    """A Job over `run`; graphs are built once for all."""
    return new_job(run)


@pytest.fixture(scope="session")
def firm_bundle(run, tmp_path_factory) -> Path:
    """The bundle that `python -m export --to onnx` makes of `run`. Do not change it: copy it."""
    from stageproof.export.__main__ import main

    folder = tmp_path_factory.mktemp("firm") / "bundle"
    assert main([str(run), "--to", "onnx", "--out", str(folder)]) == 0
    return folder
