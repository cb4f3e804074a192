"""Where a network starts from."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import warnings
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import DenseNet121_Weights, VisionTransformer, get_model, resnet50

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import FOUR_STAGES, LABELS, label_set
from stageproof.train.foreign.imagenet import current_names, url, without_auxiliary
from stageproof.train.networks import NetworkSpec, build, construct, head_of
from stageproof.train.networks.adapt import adapted
from stageproof.train.runs.directory import load_weights
from stageproof.train.runs.initial_weights import initialise

NETWORK = NetworkSpec.of("resnet50", 4)


def test_none_leaves_the_random_weights():
    model = build("resnet50", 4)
    before = model.conv1.weight.clone()
    assert initialise(model, "none", NETWORK, FOUR_STAGES) == "random weights"
    assert torch.equal(model.conv1.weight, before)


def test_a_file_with_the_published_head_is_taken_whole(tmp_path):
    published = build("resnet50", 4)
    torch.save({f"module.{name}": tensor for name, tensor in published.state_dict().items()}, tmp_path / "a.pth")
    model = build("resnet50", 4)
    assert initialise(model, str(tmp_path / "a.pth"), NETWORK, FOUR_STAGES).startswith(
        f"{tmp_path / 'a.pth'}, head included"
    )
    assert all(torch.equal(published.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["model.", "module.encoder.", "stage_0."])
def test_a_network_under_any_prefix_is_taken_without_what_belongs_to_its_training(tmp_path, prefix):
    spec = NetworkSpec.of("shufflenet_v2_x0_5", 4)
    published = construct(spec).state_dict()
    counters = {"criterion.weight": torch.ones(4), f"{prefix}total_ops": torch.zeros(1), "n_averaged": torch.ones(())}
    state = {f"{prefix}{name}": tensor for name, tensor in published.items()}
    torch.save({"net": {**state, **counters}, "epoch": 3}, tmp_path / "a.pth")
    model = construct(spec)
    assert "head included" in initialise(model, str(tmp_path / "a.pth"), spec, FOUR_STAGES)
    assert all(torch.equal(published[name], tensor) for name, tensor in model.state_dict().items())
    torch.save({**state, "attention.weight": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"has unknown attention\.weight"):
        initialise(model, str(tmp_path / "a.pth"), spec, FOUR_STAGES)
    torch.save({**state, **{f"teacher.{name}": tensor for name, tensor in published.items()}}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"several state dicts of the network, under .*'teacher\.'"):
        initialise(model, str(tmp_path / "a.pth"), spec, FOUR_STAGES)


def test_of_a_1000_class_file_the_backbone_alone_is_taken(tmp_path):
    imagenet = resnet50()
    torch.save(imagenet.state_dict(), tmp_path / "a.pth")
    model = build("resnet50", 4)
    head = model.fc[0].weight.clone()
    assert initialise(model, str(tmp_path / "a.pth"), NETWORK, FOUR_STAGES).endswith(
        "backbone only (its head has another shape)"
    )
    assert torch.equal(model.fc[0].weight, head)
    assert torch.equal(model.layer4[2].conv3.weight, imagenet.layer4[2].conv3.weight)


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save({"features.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"does not fit ResNet: .* Train with the --recipe of its network"):
        initialise(build("resnet50", 4), str(tmp_path / "a.pth"), NETWORK, FOUR_STAGES)


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth is not a file"):
        initialise(build("resnet50", 4), str(tmp_path / "nowhere.pth"), NETWORK, FOUR_STAGES)


def test_imagenet_without_a_network_says_what_to_do(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        initialise(build("resnet50", 4), "imagenet", NETWORK, FOUR_STAGES)
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

    def cached(content: bytes, architecture: str = "resnet50") -> Path:
        name = f"{architecture}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        monkeypatch.setattr("train.foreign.imagenet.url", lambda _: f"https://nowhere.invalid/models/{name}")
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
    assert initialise(model, "imagenet", NETWORK, FOUR_STAGES) == "imagenet, backbone only (its head has another shape)"
    assert torch.equal(model.conv1.weight, imagenet.conv1.weight)


def test_cached_imagenet_weights_of_another_hash_are_not_loaded(published):
    path = published(saved(resnet50().state_dict()))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"it is not the file that torchvision published\. Not loaded"):
        initialise(build("resnet50", 4), "imagenet", NETWORK, FOUR_STAGES)


class Planted:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_cached_pickle_runs_nothing_even_with_the_published_hash(published, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "0")
    published(saved({"conv1.weight": Planted(tmp_path / "ran")}))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        initialise(build("resnet50", 4), "imagenet", NETWORK, FOUR_STAGES)
    published(pickle.dumps(Planted(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match="cannot be read as weights"):
        initialise(build("resnet50", 4), "imagenet", NETWORK, FOUR_STAGES)
    assert not (tmp_path / "ran").exists()


def test_a_head_in_another_order_of_classes_is_put_in_that_of_runs(tmp_path):
    order = [LABELS[at] for at in (2, 0, 3, 1)]
    state = {**build("resnet34-gray", 4).state_dict(), "fc.bias": torch.tensor([20.0, 0.0, 30.0, 10.0])}
    torch.save({"state_dict": state, "classes": order}, tmp_path / "a.pth")
    model = build("resnet34-gray", 4)
    grey = NetworkSpec.of("resnet34-gray", 4)
    assert initialise(model, str(tmp_path / "a.pth"), grey, FOUR_STAGES).endswith(
        "head included, outputs reordered to clinical order"
    )
    assert model.state_dict()["fc.bias"].tolist() == [0.0, 10.0, 20.0, 30.0]
    assert torch.equal(model.state_dict()["fc.weight"], state["fc.weight"][[1, 3, 0, 2]])
    torch.save({"state_dict": state, "classes": order, "class_names": list(LABELS)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="Contradictory class orders"):
        initialise(model, str(tmp_path / "a.pth"), grey, FOUR_STAGES)
    torch.save(state, tmp_path / "a.pth")
    assert initialise(model, str(tmp_path / "a.pth"), grey, FOUR_STAGES).endswith("head included, class order unknown")


def test_cached_imagenet_weights_of_any_network_are_adapted_to_one_channel_and_its_head(published):
    torch.manual_seed(1)
    imagenet = get_model("mobilenet_v3_small")
    path = published(saved(imagenet.state_dict()), "mobilenet_v3_small")
    network = NetworkSpec.of("mobilenet_v3_small", 3, 1, "two-layer")
    torch.manual_seed(0)
    model = construct(network)
    head = {name: tensor.clone() for name, tensor in head_of(model).state_dict().items()}
    said = initialise(model, "imagenet", network, FOUR_STAGES)
    assert said == (
        "imagenet, backbone only (its head has another shape), first convolution averaged over its three channels"
    )
    assert path.exists()
    assert torch.equal(model.features[0][0].weight, imagenet.features[0][0].weight.mean(1, keepdim=True))
    assert torch.equal(model.features[12][0].weight, imagenet.features[12][0].weight)
    assert torch.equal(model.classifier[0].weight, imagenet.classifier[0].weight), "below the last layer"
    assert all(torch.equal(tensor, head[name]) for name, tensor in head_of(model).state_dict().items())


def test_torchvisions_loader_and_ours_give_the_same_network(published, monkeypatch):
    """DenseNet's published file has the names of earlier versions, which torchvision's own loader translates."""
    torch.manual_seed(1)
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|relu|conv))([12])\.", r"\1.\2.", name): tensor
        for name, tensor in get_model("densenet121").state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    published(saved(old), "densenet121")
    monkeypatch.setattr(DenseNet121_Weights, "get_state_dict", lambda *_, **__: dict(old))
    theirs = get_model("densenet121", weights="IMAGENET1K_V1").state_dict()
    network = NetworkSpec.of("densenet121", 1000)
    model = construct(network)
    assert "head included" in initialise(model, "imagenet", network, FOUR_STAGES)
    assert any(".norm.1." in name for name in old)
    assert all(torch.equal(theirs[name], tensor) for name, tensor in model.state_dict().items())


def test_auxiliary_classifiers_and_older_names_of_torchvision():
    names = ("aux1.fc1.weight", "AuxLogits.fc.bias", "encoder.layers.encoder_layer_0.mlp.linear_1.weight", "fc.weight")
    assert list(current_names(without_auxiliary(dict.fromkeys(names, torch.ones(1))))) == [
        "encoder.layers.encoder_layer_0.mlp.0.weight",
        "fc.weight",
    ]


def test_only_published_addresses_are_used():
    assert url("densenet121").startswith("https://download.pytorch.org/models/densenet121-")
    with pytest.raises(CheckpointError, match=r"torchvision has no weights of resnet34-gray"):
        url("resnet34-gray")
    with pytest.raises(CheckpointError, match=r"no weights IMAGENET1K_V1 of vit_h_14, only IMAGENET1K_SWAG_E2E_V1, "):
        url("vit_h_14")


def test_position_embeddings_are_interpolated_to_the_image_size():
    def transformer(size: int) -> VisionTransformer:
        return VisionTransformer(size, 16, num_layers=1, num_heads=1, hidden_dim=8, mlp_dim=8, num_classes=4)

    network = NetworkSpec.of("vit_b_16", 4, image_size=32)
    old, model = transformer(64), transformer(32)
    state, said = adapted(old.state_dict(), model, network)
    assert said == ", position embeddings interpolated from 16 to 4 patches"
    model.load_state_dict(state)
    grid = old.encoder.pos_embedding[0, 1:].reshape(4, 4, 8)
    corners = torch.stack([grid[0, 0], grid[0, -1], grid[-1, 0], grid[-1, -1]])
    assert torch.allclose(model.encoder.pos_embedding[0, 1:], corners, atol=1e-6), "2 × 2 cells are the corners"
    assert adapted(old.state_dict(), transformer(64), NetworkSpec.of("vit_b_16", 4, image_size=64))[1] == ""


def test_the_head_of_other_classes_is_left_out(tmp_path):
    """Three classes each: the shapes fit, and an output of CN must not become one of the tumours."""
    names = ("CN", "MCI", "AD")
    published = build("resnet34-gray", 3)
    order = {name: at for at, name in enumerate(sorted(names))}
    torch.save({"state_dict": published.state_dict(), "class_to_idx": order}, tmp_path / "a.pth")
    network = NetworkSpec.of("resnet34-gray", 3)
    model = build("resnet34-gray", 3)
    before = model.fc.weight.clone()
    said = initialise(model, str(tmp_path / "a.pth"), network, label_set(("no tumour", "meningioma", "glioma")))
    assert said.endswith("backbone only (its classes are AD, CN, MCI)")
    assert torch.equal(model.fc.weight, before)
    assert torch.equal(model.layer0[0].conv1[0].weight, published.layer0[0].conv1[0].weight)
    said = initialise(model, str(tmp_path / "a.pth"), network, label_set(names))
    assert said.endswith("head included, outputs reordered to clinical order")
    assert torch.equal(model.fc.weight, published.fc.weight[[order[name] for name in names]])


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda one: one.to(torch.int8), "int8"),
        (lambda one: one.to(torch.complex64), "complex64"),
        (lambda one: one.to_sparse(), "sparse_coo, float32"),
        (lambda one: one.to("meta"), "no values"),
        (lambda one: torch.quantize_per_tensor(one, 0.1, 0, torch.qint8), "qint8"),
    ],
)
def test_weights_that_are_no_dense_floats_are_refused(change, kind):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = dict(model.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # quantised tensors are deprecated
        state["0.weight"] = change(state["0.weight"])
    with pytest.raises(CheckpointError, match=f"0.weight is a tensor of {kind}, expected dense floating-point"):
        load_weights(model, state, Path("model.pth"))
    state["0.weight"] = torch.zeros(2, 3).half()
    load_weights(model, state, Path("model.pth"))
    assert model[0].weight.dtype == torch.float32
