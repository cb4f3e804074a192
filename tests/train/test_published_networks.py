"""The networks are those whose published checkpoints they load."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stageproof.train.foreign.weight_files import read_state
from stageproof.train.networks import build
from stageproof.train.runs.directory import load_weights


class PublicBlock(nn.Module):
    """The residual block as the public implementation writes it."""

    def __init__(self, in_channels, out_channels, stride=1, downsample=None):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(out_channels, out_channels, kernel_size=3, stride=1, padding=1), nn.BatchNorm2d(out_channels)
        )
        self.downsample = downsample
        self.relu = nn.ReLU()

    def forward(self, x):
        residual = x
        out = self.conv2(self.conv1(x))
        if self.downsample:
            residual = self.downsample(x)
        out += residual
        return self.relu(out)


class PublicResNet(nn.Module):
    """The one-channel ResNet34 as the public implementation writes it."""

    def __init__(self, layers=(3, 4, 6, 3), num_classes=4):
        super().__init__()
        self.inplanes = 64
        self.conv1 = nn.Sequential(nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3), nn.BatchNorm2d(64), nn.ReLU())
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer0 = self._make_layer(64, layers[0], stride=1)
        self.layer1 = self._make_layer(128, layers[1], stride=2)
        self.layer2 = self._make_layer(256, layers[2], stride=2)
        self.layer3 = self._make_layer(512, layers[3], stride=2)
        self.avgpool = nn.AvgPool2d(7, stride=1)
        self.fc = nn.Linear(512, num_classes)

    def _make_layer(self, planes, blocks, stride=1):
        downsample = None
        if stride != 1 or self.inplanes != planes:
            downsample = nn.Sequential(
                nn.Conv2d(self.inplanes, planes, kernel_size=1, stride=stride), nn.BatchNorm2d(planes)
            )
        layers = [PublicBlock(self.inplanes, planes, stride, downsample)]
        self.inplanes = planes
        layers += [PublicBlock(self.inplanes, planes) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x):
        x = self.maxpool(self.conv1(x))
        x = self.layer3(self.layer2(self.layer1(self.layer0(x))))
        x = self.avgpool(x)
        return self.fc(x.view(x.size(0), -1))


def settle(model: nn.Module) -> nn.Module:
    """Give BatchNorm statistics other than those it starts with."""
    draw = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=draw)
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    return model.eval()


@pytest.mark.parametrize("name", ["model.pth", "model.zip"])
def test_a_public_resnet34_checkpoint_predicts_as_the_code_that_wrote_it(tmp_path, name):
    torch.manual_seed(0)
    public = settle(PublicResNet())
    torch.save(public.state_dict(), tmp_path / name)
    model = build("resnet34-gray", 4).eval()
    load_weights(model, read_state(tmp_path / name), name)
    assert list(model.state_dict()) == list(public.state_dict())
    images = torch.randn(3, 1, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, theirs = F.softmax(model(images), 1), F.softmax(public(images), 1)
    assert (ours - theirs).abs().max() < 1e-5


def test_its_module_names_are_the_published_ones():
    names = set(build("resnet34-gray", 4).state_dict())
    assert {"conv1.0.weight", "conv1.0.bias", "conv1.1.running_var", "layer0.0.conv1.0.bias"} <= names
    assert {"layer1.0.downsample.0.weight", "layer3.2.conv2.1.weight", "fc.weight", "fc.bias"} <= names
    assert not any(name.startswith("layer0.0.downsample") for name in names)


@pytest.mark.parametrize("size", [64, 128, 224])
def test_resnet34_takes_other_sizes_than_the_published_one(size):
    with torch.inference_mode():
        assert build("resnet34-gray", 4).eval()(torch.zeros(2, 1, size, size)).shape == (2, 4)


def test_a_dataparallel_resnet50_checkpoint_predicts_as_the_code_that_wrote_it(tmp_path):
    from torchvision.models import resnet50

    torch.manual_seed(0)
    public = resnet50(weights=None)
    public.fc = nn.Sequential(nn.Linear(2048, 512), nn.ReLU(), nn.Dropout(0.3), nn.Linear(512, 4))
    settle(public)
    torch.save(nn.DataParallel(public).state_dict(), tmp_path / "best.pth")
    model = build("resnet50", 4).eval()
    load_weights(model, read_state(tmp_path / "best.pth"), "best.pth")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert (F.softmax(model(images), 1) - F.softmax(public(images), 1)).abs().max() < 1e-5
