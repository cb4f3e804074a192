"""Where a network starts from."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision.models import resnet50

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import LABELS
from stageproof.train.networks import build
from stageproof.train.runs.initial_weights import initialise


def test_none_leaves_the_random_weights():
    model = build("resnet50", 4)
    before = model.conv1.weight.clone()
    assert initialise(model, "none") == "random weights"
    assert torch.equal(model.conv1.weight, before)


def test_a_file_with_the_published_head_is_taken_whole(tmp_path):
    published = build("resnet50", 4)
    torch.save({f"module.{name}": tensor for name, tensor in published.state_dict().items()}, tmp_path / "a.pth")
    model = build("resnet50", 4)
    assert initialise(model, str(tmp_path / "a.pth")).startswith(f"{tmp_path / 'a.pth'}, head included")
    assert all(torch.equal(published.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_of_a_1000_class_file_the_backbone_alone_is_taken(tmp_path):
    imagenet = resnet50()
    torch.save(imagenet.state_dict(), tmp_path / "a.pth")
    model = build("resnet50", 4)
    head = model.fc[0].weight.clone()
    assert initialise(model, str(tmp_path / "a.pth")).endswith("backbone only (its head has another shape)")
    assert torch.equal(model.fc[0].weight, head)
    assert torch.equal(model.layer4[2].conv3.weight, imagenet.layer4[2].conv3.weight)


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save({"features.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"does not fit ResNet: .* Train with the --recipe of its network"):
        initialise(build("resnet50", 4), str(tmp_path / "a.pth"))


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth is not a file"):
        initialise(build("resnet50", 4), str(tmp_path / "nowhere.pth"))


def test_imagenet_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        initialise(build("resnet50", 4), "imagenet")
    message = str(caught.value)
    assert "not cached and cannot be downloaded (<urlopen error no route to host>)" in message
    assert f"Copy resnet50-0676ba61.pth to {tmp_path / 'checkpoints'} and run again" in message
    assert "--weights none" in message


@pytest.fixture
def published(tmp_path, monkeypatch):
    """`published(content)`: the file in torchvision's cache, and its address as if these bytes had been published."""

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()

    def cached(content: bytes) -> Path:
        name = f"resnet50-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        monkeypatch.setattr("train.foreign.imagenet.url", lambda: f"https://nowhere.invalid/models/{name}")
        path = tmp_path / "checkpoints" / name
        path.write_bytes(content)
        return path

    return cached


def saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_imagenet_weights_that_are_cached_are_taken(published):
    imagenet = resnet50()
    published(saved(imagenet.state_dict()))
    model = build("resnet50", 4)
    assert initialise(model, "imagenet") == "imagenet, backbone only (its head has another shape)"
    assert torch.equal(model.conv1.weight, imagenet.conv1.weight)


def test_cached_imagenet_weights_of_another_hash_are_not_loaded(published):
    path = published(saved(resnet50().state_dict()))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"it is not the file that torchvision published\. Not loaded"):
        initialise(build("resnet50", 4), "imagenet")


class Planted:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_cached_pickle_runs_nothing_even_with_the_published_hash(published, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0")
    published(saved({"conv1.weight": Planted(tmp_path / "ran")}))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        initialise(build("resnet50", 4), "imagenet")
    published(pickle.dumps(Planted(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        initialise(build("resnet50", 4), "imagenet")
    assert not (tmp_path / "ran").exists()


def test_a_head_in_another_order_of_classes_is_put_in_that_of_runs(tmp_path):
    order = [LABELS[at] for at in (2, 0, 3, 1)]
    state = {**build("resnet34-gray", 4).state_dict(), "fc.bias": torch.tensor([20.0, 0.0, 30.0, 10.0])}
    torch.save({"state_dict": state, "classes": order}, tmp_path / "a.pth")
    model = build("resnet34-gray", 4)
    assert initialise(model, str(tmp_path / "a.pth")).endswith("head included, outputs reordered to clinical order")
    assert model.state_dict()["fc.bias"].tolist() == [0.0, 10.0, 20.0, 30.0]
    assert torch.equal(model.state_dict()["fc.weight"], state["fc.weight"][[1, 3, 0, 2]])
    torch.save({"state_dict": state, "classes": order, "class_names": list(LABELS)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="Contradictory class orders"):
        initialise(model, str(tmp_path / "a.pth"))
    torch.save(state, tmp_path / "a.pth")
    assert initialise(model, str(tmp_path / "a.pth")).endswith("head included, class order unknown")
