"""Checkpoints as other programs write them: loaded as the network that wrote them, or refused for what they are.

`LOADED` and `REFUSED` list the variants. Each is written by a real torch.save (or what writes such files) of a real
network, and read as `python -m export FILE` does, without --architecture.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from stageproof.export.options import Options
from stageproof.export.preconditions import with_absolute_source
from stageproof.export.reference.source import load_reference
from stageproof.runtime.errors import CheckpointError, InputError, StageproofError

SIZE = 64
NAMES = ["MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented"]


def settled(model: nn.Module, channels: int = 3) -> nn.Module:
    """The network in eval mode, with the statistics of one batch in BatchNorm, so that images matter."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(8, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))
    return model.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return settled(models.shufflenet_v2_x0_5(num_classes=4))


def prefixed(prefix: str, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def changed(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of other weights."""
    return {name: tensor + 1 for name, tensor in network.state_dict().items()}


def lightning(network: nn.Module, path: Path) -> None:
    """A checkpoint with the keys of Lightning 2.6, of a module with a weighted loss and metrics of torchmetrics. The
    pickle names Lightning's AttributeDict, as a file of Lightning does; Lightning is not installed here."""
    state = prefixed("model.", network.state_dict())
    state |= {"criterion.weight": torch.ones(4), "train_acc.tp": torch.tensor([3]), "confmat.confmat": torch.ones(4, 4)}
    place = "lightning.fabric.utilities.data"
    kind = type("AttributeDict", (dict,), {"__module__": place})
    parents = [place.rsplit(".", number)[0] for number in range(3, -1, -1)]
    with patch.dict(sys.modules, {name: types.ModuleType(name) for name in parents}):
        sys.modules[place].AttributeDict = kind  # type: ignore[attr-defined]
        content = {
            "epoch": 3,
            "global_step": 9,
            "pytorch-lightning_version": "2.6.6",
            "state_dict": OrderedDict(state),
            "optimizer_states": [{"state": {0: {"step": torch.tensor(9.0), "exp_avg": torch.ones(2)}}}],
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"kth_value": torch.tensor(1.0)}},
            "lr_schedulers": [{"T_max": 3, "base_lrs": [0.001]}],
            "hyper_parameters": kind(lr=0.1, root=Path("/data")),
        }
        torch.save(content, path)


def averaged(network: nn.Module) -> dict[str, torch.Tensor]:
    return torch.optim.swa_utils.AveragedModel(network).state_dict()


def profiled(network: nn.Module) -> dict[str, torch.Tensor]:
    counters = {"total_ops": torch.zeros(1), "total_params": torch.zeros(1), "conv1.total_ops": torch.zeros(1)}
    return {**network.state_dict(), **counters}


def with_head(*layers: nn.Module) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        torch.manual_seed(2)
        model = models.shufflenet_v2_x0_5()
        model.fc = nn.Sequential(*layers)
        return settled(model)

    return make


Write = Callable[[nn.Module, Path], object]


def saved(content: Callable[[nn.Module], Any], **how: Any) -> Write:
    return lambda network, path: torch.save(content(network), path, **how)


def named_safetensors(network: nn.Module, path: Path) -> None:
    save_file(prefixed("net.", network.state_dict()), path, {"labels": ", ".join(NAMES)})


LOADED: dict[str, Write] = {
    "state dict": saved(lambda one: one.state_dict()),
    "before torch 1.6": saved(lambda one: one.state_dict(), _use_new_zipfile_serialization=False),
    "plain dict": saved(lambda one: dict(one.state_dict())),
    "safetensors named .pth": named_safetensors,
    "module. (DataParallel)": saved(lambda one: nn.DataParallel(one).state_dict()),
    "_orig_mod. (torch.compile)": saved(lambda one: torch.compile(one).state_dict()),
    "module._orig_mod.": saved(lambda one: nn.DataParallel(torch.compile(one)).state_dict()),
    "resnet.": saved(lambda one: prefixed("resnet.", one.state_dict())),
    "backbone.": saved(lambda one: {"state_dict": prefixed("backbone.", one.state_dict())}),
    "module.model.encoder.net.": saved(lambda one: prefixed("module.model.encoder.net.", one.state_dict())),
    "a prefix nobody has used": saved(lambda one: prefixed("stage_0.zoë.", one.state_dict())),
    "{'model': …}": saved(lambda one: {"model": one.state_dict(), "epoch": 3, "best": np.float64(0.5)}),
    "{'net': …}": saved(lambda one: {"net": one.state_dict(), "acc": np.float32(91.3), "epoch": np.int64(7)}),
    "{'model_state_dict': …}": saved(lambda one: {"model_state_dict": one.state_dict(), "loss": torch.tensor(0.1)}),
    "{'ema': …}": saved(lambda one: {"ema": prefixed("module.", one.state_dict())}),
    "{'checkpoint': {'weights': …}}": saved(lambda one: {"checkpoint": {"weights": one.state_dict()}}),
    "with optimizer": saved(
        lambda one: {"net": one.state_dict(), "optimizer": torch.optim.Adam(one.parameters()).state_dict()}
    ),
    "Lightning": lightning,
    "averaged weights": saved(averaged),
    "profiler counters": saved(profiled),
    "without num_batches_tracked": saved(
        lambda one: {name: tensor for name, tensor in one.state_dict().items() if "num_batches" not in name}
    ),
    "options beside": saved(
        lambda one: {
            "state_dict": one.state_dict(),
            "args": argparse.Namespace(lr=0.1, data=Path("/data")),
            "time": datetime.datetime.now(),
            "took": datetime.timedelta(3),
            "rng": np.random.get_state(),
        }
    ),
    "names among the tensors": saved(lambda one: {**one.state_dict(), "classes": NAMES}),
    "names as an array": saved(lambda one: {"state_dict": one.state_dict(), "class_names": np.array(NAMES)}),
    "half precision": saved(
        lambda one: {k: v.half() if v.is_floating_point() else v for k, v in one.state_dict().items()}
    ),
    "a loss beside": saved(lambda one: prefixed("model.", one.state_dict()) | {"loss.weight": torch.ones(4)}),
}
"""Variant → what writes it. Each is read as the network that was written."""


def load(path: Path, **more: Any) -> Any:
    given = {"source": path, "image_size": SIZE, **more}
    return load_reference(with_absolute_source(Options(**given)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def assert_same(reference: Any, source: nn.Module, channels: int = 3, tolerance: float = 0.0) -> None:
    images = torch.randn(2, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = source(images).numpy()
    assert np.abs(reference.logits(images.numpy()) - expected).max() <= tolerance
    assert np.ptp(expected, axis=0).max() > 1e-4, "the images must matter"


@pytest.mark.parametrize("variant", LOADED)
def test_it_is_read_as_the_network_that_was_written(variant: str, network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    LOADED[variant](network, path)
    reference = load(path)
    assert reference.info.architecture == "shufflenet_v2_x0_5"
    assert (reference.info.input.channels, len(reference.info.labels)) == (3, 4)
    assert_same(reference, network, tolerance=2e-2 if variant == "half precision" else 0.0)
    left_out = [row["value"] for row in reference.provenance["inferred"] if row["what"] == "left out"]
    expected = {
        "Lightning": {"1 tensors: loss function", "2 tensors: metrics"},
        "averaged weights": {"1 tensors: counter of averaged weights"},
        "profiler counters": {"3 tensors: counters of a profiler (thop)"},
        "a loss beside": {"1 tensors: loss function"},
    }
    assert set(left_out) == expected.get(variant, set())
    stated = ("safetensors named .pth", "names among the tensors", "names as an array")
    assert reference.order.origin == ("checkpoint" if variant in stated else "assumed alphabetical")


HEADS: dict[str, tuple[Callable[[], nn.Module], str | None, int]] = {
    "dropout before it": (with_head(nn.Dropout(0.5), nn.Linear(1024, 2)), None, 2),
    "two layers, 512 hidden": (
        with_head(nn.Linear(1024, 512), nn.ReLU(), nn.Dropout(), nn.Linear(512, 3)),
        "two-layer",
        3,
    ),
    "another width": (with_head(nn.Linear(1024, 100), nn.ReLU(), nn.Linear(100, 7)), "two-layer-100", 7),
    "20 classes": (with_head(nn.Linear(1024, 20)), None, 20),
}


@pytest.mark.parametrize("variant", HEADS)
def test_the_head_is_told_from_its_shapes(variant: str, tmp_path: Path) -> None:
    make, head, classes = HEADS[variant]
    source = make()
    torch.save(source.state_dict(), tmp_path / "model.pth")
    names = tuple(f"class {chr(97 + number)}" for number in range(classes))
    reference = load(tmp_path / "model.pth", labels=names)
    assert (reference.info.head, reference.info.labels, reference.info.network.classes) == (head, names, classes)
    assert_same(reference, source)
    assumed = [row for row in reference.provenance["inferred"] if row["source"].startswith("assumed")]
    assert ("activation" in [row["what"] for row in assumed]) == (head is not None)


def test_one_channel_is_told_from_the_first_convolution(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = models.shufflenet_v2_x0_5(num_classes=4)
    source.conv1[0] = nn.Conv2d(1, 24, 3, 2, 1, bias=False)
    torch.save(settled(source, 1).state_dict(), tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"shufflenet_v2_x0_5 takes 1 channel, but --mean has 0 values"):
        load(tmp_path / "model.pth")
    assert_same(load(tmp_path / "model.pth", mean=(0.3,), std=(0.2,)), source, channels=1)


class Harmful:
    """Its pickle creates a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


class Whole(nn.Module):
    """A network whose class only this file has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)


def two(network: nn.Module) -> dict[str, Any]:
    return {"state_dict": network.state_dict(), "state_dict_ema": prefixed("module.", changed(network))}


def raw(content: bytes) -> Write:
    return lambda network, path: path.write_bytes(content)


def folder_of(*names: str) -> Write:
    def write(network: nn.Module, path: Path) -> None:
        path.mkdir()
        for name in names:
            (path / name).write_bytes(b"1")

    return write


def without(name: str) -> Write:
    return saved(lambda one: {key: tensor for key, tensor in one.state_dict().items() if key != name})


def of_head(*layers: nn.Module) -> Write:
    return lambda network, path: torch.save(with_head(*layers)().state_dict(), path)


REFUSED: dict[str, tuple[Write, str]] = {
    "weights and their average": (saved(two), r"contains 2 state dicts of shuf.*: state_dict, state_dict_ema\. Choose"),
    "student and teacher": (
        saved(lambda one: prefixed("student.", one.state_dict()) | prefixed("teacher.", changed(one))),
        r"contains 2 state dicts .*: student, teacher\. .*--checkpoint-key student",
    ),
    "an additional layer": (
        saved(lambda one: {**one.state_dict(), "attention.weight": torch.ones(4, 4)}),
        r"The closest is shufflenet_v2_x0_5, with .* tensors that this network does not have: attention\.weight",
    ),
    "an additional layer outside": (
        saved(lambda one: prefixed("model.", one.state_dict()) | {"classifier.weight": torch.ones(2, 4)}),
        r"closest is shufflenet_v2_x0_5 \(under model\.\).*does not have: classifier\.weight",
    ),
    "a layer less": (
        without("stage2.0.branch1.0.weight"),
        r"closest is shufflenet_v2_x0_5.*lacks stage2\.0\.branch",
    ),
    "no head": (of_head(nn.Identity()), r"it has no head: no tensor begins with fc\."),
    "a head with BatchNorm": (
        of_head(nn.Linear(1024, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)),
        r"head has a layer that is not fully connected: fc\.1",
    ),
    "a head without activation": (of_head(nn.Linear(1024, 8), nn.Linear(8, 4)), r"fc\.0 and fc\.1 .* no activation"),
    "three layers": (
        of_head(nn.Linear(1024, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)),
        r"head has 3 layers with weights, expected one or two: fc\.0, fc\.2, fc\.4",
    ),
    "one output": (of_head(nn.Linear(1024, 1)), r"with 1 output, as for a sigmoid, expected 2 to 20"),
    "ImageNet's classes": (of_head(nn.Linear(1024, 1000)), r"1000 outputs.*ImageNet's classes: train it first"),
    "five classes without names": (
        of_head(nn.Linear(1024, 5)),
        r"has 5 outputs, and neither .*--labels CLASS0",
    ),
    "names of timm": (
        saved(lambda one: {"blocks.0.attn.qkv.weight": torch.ones(9, 3)}),
        r"fits no network that is known here.*export it to ONNX",
    ),
    "values that are not finite": (
        saved(lambda one: {**one.state_dict(), "fc.bias": torch.full((4,), torch.nan)}),
        r"fc\.bias contains values that are not finite",
    ),
    "a whole network": (
        saved(lambda one: Whole()),
        r"a whole network of the class .*\.Whole, saved with",
    ),
    "a network in a dict": (
        saved(lambda one: {"model": one, "epoch": 1}),
        r"whole network of the class torchvis",
    ),
    "a class of another program": (
        saved(lambda one: {"state_dict": one.state_dict(), "tracker": Harmless()}),
        r"more than tensors and plain containers \(.*\.Harmless\), so it was not loaded",
    ),
    "a newer pickle protocol": (
        saved(lambda one: one.state_dict(), pickle_protocol=4),
        r"a pickle protocol that torch does not read safely\. Save it again",
    ),
    "a pickle of another program": (
        raw(pickle.dumps({"coef": [1.0]}, protocol=4)),
        r"is a pickle that torch\.save did not write",
    ),
    "only numbers": (saved(lambda one: {"epoch": 3}), r"contains dict, expected a state dict of tensors"),
    "Git LFS pointer": (
        raw(b"version https://git-lfs.github.com/spec/v1\noid 4d\n"),
        r"a Git LFS pointer.*git lfs",
    ),
    "HDF5": (raw(b"\x89HDF\r\n\x1a\n" + bytes(99)), r"an HDF5 file, as Keras"),
    "web page": (raw(b"<!DOCTYPE html><title>Sign in"), r"is a web page"),
    "index of several files": (raw(b'{"metadata": {}, "weight_map": {}}'), r"index of a checkpoint in several files"),
    "SavedModel": (folder_of("saved_model.pb"), r"is a TensorFlow SavedModel"),
    "distributed checkpoint": (folder_of(".metadata", "__0_0.distcp"), r"is a distributed checkpoint.*dcp_to_torch"),
    "folder of weights": (folder_of("model.safetensors", "config.json"), r"not a run.*Give one .*model\.safetensors"),
}
"""Variant → (what writes it, the message)."""


class Harmless:
    """Nothing, but not on the list of classes."""


@pytest.mark.parametrize("variant", REFUSED)
def test_it_is_refused_for_what_it_is(variant: str, network: nn.Module, tmp_path: Path) -> None:
    write, message = REFUSED[variant]
    path = tmp_path / "model.pth"
    write(network, path)
    with pytest.raises(StageproofError, match=message) as caught:
        load(path)
    assert isinstance(caught.value, CheckpointError)


@pytest.mark.parametrize("place", ["alone", "beside", "in the state dict", "in an allowed class"])
def test_code_in_a_pickle_never_runs(place: str, network: nn.Module, tmp_path: Path) -> None:
    proof = tmp_path / "ran"
    contents = {
        "alone": Harmful(proof),
        "beside": {"state_dict": network.state_dict(), "extra": Harmful(proof)},
        "in the state dict": {**network.state_dict(), "fc.scale": Harmful(proof)},
        "in an allowed class": {
            "state_dict": network.state_dict(),
            "args": argparse.Namespace(a=Harmful(proof)),
        },
    }
    for legacy in (False, True):
        torch.save(contents[place], tmp_path / "model.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError, match=r"more than tensors.*posix\.system.*a pickle can run code"):
            load(tmp_path / "model.pth")
    assert not proof.exists()
    pickle.loads(pickle.dumps(Harmful(proof)))
    assert proof.exists(), "the same object runs its code in Python's own unpickler"


def test_the_one_of_two_state_dicts_is_chosen_by_its_key(network: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(two(network), path)
    other = settled(models.shufflenet_v2_x0_5(num_classes=4))
    other.load_state_dict(changed(network))
    first, second = load(path, checkpoint_key="state_dict"), load(path, checkpoint_key="state_dict_ema")
    assert_same(first, network)
    assert first.info.digest != second.info.digest, "two models of one file must not share a bundle"
    name = "fc.bias"
    assert torch.equal(second.model.get_parameter(name), other.get_parameter(name))
    with pytest.raises(InputError, match=r"--checkpoint-key is 'ema', but .* It has: state_dict, state_dict_ema"):
        load(path, checkpoint_key="ema")
    torch.save(prefixed("student.", network.state_dict()) | prefixed("teacher.", changed(network)), path)
    assert_same(load(path, checkpoint_key="student"), network)


def test_an_architecture_that_contradicts_the_file_is_refused(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "model.pth")
    assert_same(load(tmp_path / "model.pth", architecture="shufflenet_v2_x0_5"), network)
    with pytest.raises(InputError, match=r"--architecture is resnet50, but the tensors .* are those of shufflenet"):
        load(tmp_path / "model.pth", architecture="resnet50")
    with pytest.raises(CheckpointError, match=r"No network is called 'shufflenet'\. Did you mean shufflenet_v2"):
        load(tmp_path / "model.pth", architecture="shufflenet")
