"""Runs of networks whose decisions are firm and spread over all four classes, made in seconds."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny

SIZE = 32


@pytest.fixture(scope="session")
def slices(once) -> Path:
    """Class folders with 4 classes × 16 people × 4 phantom slices as PNG files of 64 × 64."""
    from stageproof.runtime.labels import LABELS
    from stageproof.train.data.phantom.__main__ import phantom_samples

    def write(root: Path) -> int:
        samples = phantom_samples(patients=16, slices=4, size=64, seed=11)
        for index, name in enumerate(samples.names):
            file = root / LABELS[samples.labels[index]] / Path(name).name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(samples.read(index))
        return 0

    return once("class-folders", write)


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
    which of its slices it was not trained on. architecture: as `train.networks.ARCHITECTURES` calls it."""
    from stageproof.runtime.labels import LABELS
    from stageproof.runtime.preprocess import InputSpec
    from stageproof.runtime.serialization.digests import sha256_file
    from stageproof.train.runs.directory import WEIGHTS, new_run, save_weights
    from stageproof.train.runs.record import write_record

    def write(
        path: Path,
        network,
        samples,
        data: Path,
        size: int,
        held: Callable[[str, int], bool],
        architecture: str = "resnet50",
    ) -> Path:
        with new_run(path) as folder:
            save_weights(network, folder, LABELS)
            with (folder / "split.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("name", "class", "patient", "side"))
                for index, (name, label) in enumerate(zip(samples.names, samples.labels, strict=True)):
                    patient = Path(name).name.split("_")[0]
                    writer.writerow((name, LABELS[label], patient, "validation" if held(name, index) else "training"))
            (folder / "MODEL_CARD.md").write_text("# A network for tests\n", encoding="utf-8")
            record = {
                "architecture": architecture,
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


def _held(name: str, index: int) -> bool:
    """A quarter of `slices`, people kept together."""
    return int(Path(name).name.split("_")[0][1:]) // 4 % 4 == 0


@pytest.fixture(scope="session")
def run(request, slices, write_run, once) -> Path:
    """A run directory of `network`: three quarters of `slices` on the training side, people kept together."""
    from stageproof.train.data.sources.source import load_samples

    def write(folder: Path) -> int:
        folder.mkdir()
        network = request.getfixturevalue("network")
        write_run(folder / "firm", network, load_samples(slices), slices, SIZE, _held)
        return 0

    return once("firm-runs", write) / "firm"


@pytest.fixture(scope="session")
def tiny_run(slices, write_run, once) -> Path:
    """As `run`, of a network with 500 weights, which is exported in a tenth of the time while `tiny.known` lasts."""
    from stageproof.train.data.sources.source import load_samples

    def write(folder: Path) -> int:
        folder.mkdir()
        samples = load_samples(slices)
        write_run(folder / "few", tiny.fitted(samples), samples, slices, tiny.SIZE, _held, tiny.NAME)
        return 0

    return once("tiny-runs", write) / "few"


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
        return Job(options, reference, gather(options, reference), folder, folder / "work")

    return make


@pytest.fixture(scope="session")
def job(run, new_job):
    """A Job over `run`; graphs are built once for all."""
    return new_job(run)


@pytest.fixture(scope="session")
def tiny_job(tiny_run, new_job):
    """A Job over `tiny_run`."""
    with tiny.known():
        return new_job(tiny_run)


@pytest.fixture(scope="session")
def firm_bundle(run, once) -> Path:
    """The bundle that `python -m export --to onnx` makes of `run`. Do not change it: copy it."""
    from stageproof.export.__main__ import main

    return once("firm-bundle", lambda folder: main([str(run), "--to", "onnx", "--out", str(folder)]))


@pytest.fixture(scope="session")
def small_bundle(tiny_run, once) -> Path:
    """The bundle that an export to onnx makes of `tiny_run`. Do not change it: copy it."""
    from stageproof.export.bundle.guard import write_guard
    from stageproof.export.options import Options
    from stageproof.export.run import export

    def make(folder: Path) -> int:
        with tiny.known(guard=write_guard):
            return 0 if export(Options(source=tiny_run, out=folder, threads=1)).whole else 1

    return once("small-bundle", make)
