"""Checkpoints that other code wrote, exported by the command line."""

from __future__ import annotations

import io
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from stageproof.export.__main__ import main
from stageproof.runtime.predictor import Predictor

ALPHABETICAL = ["MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented"]


def published(network) -> torch.nn.Module:
    """The published architecture as its authors write it, wrapped in DataParallel as they train it."""
    from torch import nn
    from torchvision.models import resnet50

    model = resnet50(weights=None)
    model.fc = nn.Sequential(nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 4))
    if network is not None:
        model.load_state_dict(network.state_dict())
    return nn.DataParallel(model)


def published_decisions(path, images: list[bytes], network_size: int) -> np.ndarray:
    """(N, 4) probabilities as the published loading and prediction code computes them, one image at a time."""
    from torchvision import transforms

    model = published(None)
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    model.eval()
    transform = transforms.Compose(
        [
            transforms.Resize((network_size, network_size)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    rows = []
    with torch.no_grad():
        for content in images:
            image = Image.open(io.BytesIO(content)).convert("RGB")
            rows.append(torch.softmax(model(transform(image).unsqueeze(0)), dim=1)[0].numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def network_224(phantoms, fit_network):
    """Fitted to 32 of the phantoms, at the size of the published checkpoints."""
    return fit_network(phantoms.select(np.linspace(0, len(phantoms) - 1, 32).astype(int)), 224)


@pytest.fixture(scope="module")
def checkpoint(network_224, tmp_path_factory):
    network = network_224
    path = tmp_path_factory.mktemp("published") / "best_model.pth"
    torch.save(published(network).state_dict(), path)
    assert all(name.startswith("module.") for name in torch.load(path, weights_only=True))
    return path


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("published") / "bundle"
    assert main([str(checkpoint), "--image-size", "224", "--parity-images", "16", "--out", str(out)]) == 0
    return out


def jpegs(phantoms, count: int) -> list[bytes]:
    encoded = []
    for index in np.linspace(0, len(phantoms) - 1, count).astype(int):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(phantoms.read(index))).save(buffer, "jpeg", quality=95)
        encoded.append(buffer.getvalue())
    return encoded


def assert_same(exported, checkpoint, images):
    expected = published_decisions(checkpoint, images, 224)
    assert len(set(expected.argmax(1))) >= 3, "decisions must not be all the same"
    for check in ("onnx", "openvino"):
        predictor = Predictor(exported, backend=check, trust_code=True)
        assert list(predictor.model.labels) == ALPHABETICAL
        for row, prediction in zip(expected, predictor.predict_batch(images), strict=True):
            got = np.array([prediction.probabilities[label] for label in ALPHABETICAL])
            assert np.abs(got - row).max() <= 1e-5
            assert got.argmax() == row.argmax()


@pytest.mark.slow
def test_a_dataparallel_checkpoint_decides_as_the_published_code(exported, checkpoint, phantoms):
    assert_same(exported, checkpoint, jpegs(phantoms, 32))


@pytest.mark.slow
def test_and_so_it_does_on_real_slices(exported, checkpoint, real_data):
    from stageproof.train.data.sources.source import load_samples

    samples = load_samples(real_data)
    assert_same(exported, checkpoint, [samples.read(i) for i in np.linspace(0, len(samples) - 1, 64).astype(int)])


def test_only_the_leading_module_is_removed(tmp_path):
    from stageproof.train.foreign.weight_files import read_state

    torch.save({"module.a.module.weight": torch.ones(1), "b.module.bias": torch.ones(1)}, tmp_path / "x.pth")
    assert set(read_state(tmp_path / "x.pth")) == {"a.module.weight", "b.module.bias"}


class Harmful:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("kind", ["pickle", "torch", "state_dict"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path, capsys, kind):
    evil, proof = tmp_path / "model.pth", tmp_path / "ran"
    if kind == "pickle":
        evil.write_bytes(pickle.dumps(Harmful(proof), protocol=2))
    else:
        torch.save({"state_dict": {"w": Harmful(proof)}} if kind == "state_dict" else Harmful(proof), evil)
    out = tmp_path / "bundle"
    assert main([str(evil), "--out", str(out)]) == 2
    assert "CheckpointError" in capsys.readouterr().err
    assert not proof.exists()
    assert not out.exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"features.0.weight": torch.ones(64, 3, 3, 3)},
            "fits no network that is known here: none has names",
        ),
        ({}, "expected a state dict of tensors"),
        ([1, 2], "expected a state dict of tensors"),
    ],
)
def test_another_architecture_and_no_weights_at_all_are_refused(tmp_path, capsys, state, message):
    torch.save(state, tmp_path / "vgg.pth")
    assert main([str(tmp_path / "vgg.pth"), "--out", str(tmp_path / "bundle")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(tiny_checkpoint, tmp_path, capsys, share):
    content = tiny_checkpoint.read_bytes()
    (tmp_path / "part.pth").write_bytes(content[: int(len(content) * share)])
    assert main([str(tmp_path / "part.pth"), "--out", str(tmp_path / "bundle")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.splitlines()[-1].startswith("CheckpointError: ")
    assert not (tmp_path / "bundle").exists()


def test_a_missing_checkpoint_is_refused(tmp_path, capsys):
    assert main([str(tmp_path / "none.pth"), "--out", str(tmp_path / "bundle")]) == 2
    assert "none.pth does not exist" in capsys.readouterr().err


@pytest.mark.slow
def test_int8_of_a_checkpoint_without_training_images_asks_for_them(network, tmp_path, capsys):
    out, path = tmp_path / "bundle", tmp_path / "model.pth"
    torch.save(network.state_dict(), path)
    arguments = [str(path), "--image-size", "32", "--precision", "int8", "--parity-images", "160"]
    assert main([*arguments, "--out", str(out)]) == 1
    assert "--calibration-data" in capsys.readouterr().err


@pytest.mark.slow
def test_a_one_channel_checkpoint_is_exported_once_its_input_is_known(phantoms, tmp_path, capsys):
    from torchvision import transforms

    from stageproof.train.networks import build

    torch.manual_seed(3)
    model = build("resnet34-gray", 4).eval()
    checkpoint = tmp_path / "resnet34.zip"
    torch.save(model.state_dict(), checkpoint)
    bundle = tmp_path / "bundle"
    command = [str(checkpoint), "--architecture", "resnet34-gray", "--image-size", "64", "--out", str(bundle)]
    assert main(command) == 2
    assert "resnet34-gray takes 1 channel, but --mean has 0 values" in capsys.readouterr().err
    assert not bundle.exists()
    assert main([*command, "--mean", "0.3", "--std", "0.25", "--parity-images", "32"]) == 0
    steps = [transforms.Grayscale(), transforms.Resize((64, 64)), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize([0.3], [0.25])])
    predictor = Predictor(bundle)
    for content in phantoms.images[:8]:
        with torch.no_grad():
            logits = model(transform(Image.open(io.BytesIO(content))).unsqueeze(0))
        expected = dict(zip(ALPHABETICAL, torch.softmax(logits, 1)[0].tolist(), strict=True))
        assert dict(predictor.predict(content).probabilities) == pytest.approx(expected, abs=1e-5)
