"""Bundles of a network with 500 weights, made by the real `export` in seconds: for tests of what a bundle is.

`tests/data/bundle-0.1` was made so with the code of version 0.1 (commit f0dbfcf), five formats, 155 kB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from tests.records import logged

FORMATS = ("onnx", "openvino", "torchscript", "torch-export", "pytorch")
NAME = "tiny"
SIZE = 16
IMAGES = 16
CHANNELS = 16


def build(classes: int = 4, channels: int = 3):
    """(N, channels, H, W) → (N, classes): one convolution and one linear layer, with the names that
    `runtime.backends.networks` expects."""
    import torch
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, CHANNELS, 3, 2, 1)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            self.fc = nn.Linear(CHANNELS, classes)

        def forward(self, images):
            return self.fc(self.maxpool(torch.relu(self.conv1(images))).mean((2, 3)))

    return Tiny()


def write_checkpoint(path: Path, seed: int = 0, spec: Any = None) -> Path:
    """A state dict of the network, its last layer fitted to phantoms seen by `spec`, so that it answers all classes."""
    import torch
    from torch import nn

    from stageproof.export.data.comparison import phantoms, preprocessed
    from stageproof.runtime.preprocess import InputSpec

    torch.manual_seed(seed)
    model = build().eval().requires_grad_(False)
    samples = phantoms(64)
    images = torch.from_numpy(preprocessed(samples, spec or InputSpec.imagenet(SIZE)))
    features = model.maxpool(torch.relu(model.conv1(images))).mean((2, 3))
    wanted = nn.functional.one_hot(torch.from_numpy(samples.labels), 4).double() * 8 - 2
    columns = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    fitted = torch.linalg.lstsq(columns, wanted).solution.float()
    model.fc.weight.copy_(fitted[:-1].T)
    model.fc.bias.copy_(fitted[-1])
    torch.save(model.state_dict(), path)
    return path


def fitted(samples: Any, model: Any = None) -> Any:
    """The network (or `model`, which has a linear `fc` too) with its last layer fitted to the samples by ridge
    regression: small weights, which half precision hardly moves."""
    import torch
    from torch import nn

    from stageproof.export.data.comparison import preprocessed
    from stageproof.runtime.preprocess import InputSpec

    if model is None:
        torch.manual_seed(0)
        model = build(len(samples.classes))
    model = model.eval().requires_grad_(False)
    images = torch.from_numpy(preprocessed(samples, InputSpec.imagenet(SIZE)))
    head, model.fc = model.fc, nn.Identity()
    features, model.fc = model(images), head
    wanted = nn.functional.one_hot(torch.from_numpy(samples.labels), len(samples.classes)).float() * 8 - 2
    middle = features.mean(0)
    square = (features - middle).T @ (features - middle)
    ridge = square + 1e-2 * square.trace() * torch.eye(len(square))
    weight = torch.linalg.solve(ridge, (features - middle).T @ wanted)
    head.weight.copy_(weight.T)
    head.bias.copy_(wanted.mean(0) - middle @ weight)
    return model


def guard_of_phantoms(reference: Any, folder: Path, *rest: Any) -> Any:
    """In place of `export.bundle.writer.guard.write_guard`, which needs a run: 16 phantoms."""
    from stageproof.export.data.comparison import phantoms
    from stageproof.runtime.bundle.manifest import Document
    from stageproof.runtime.guard.ood_guard import fit
    from stageproof.runtime.images.raster import read_image
    from stageproof.runtime.serialization.digests import sha256_file

    samples = phantoms(IMAGES)
    pictures = [read_image(samples.read(index)) for index in range(len(samples))]
    fit(pictures, np.arange(len(samples))).write(folder / "guard.npz")
    return Document("guard.npz", sha256_file(folder / "guard.npz")), ""


@contextmanager
def known_to_runtime() -> Iterator[None]:
    """While this lasts `runtime.backends.networks` can compute the network."""
    from stageproof.runtime.backends.networks import _SHAPES, _Shape

    with patch.dict(_SHAPES, {NAME: _Shape("conv1", (), (), "")}):
        yield


@contextmanager
def known(temperature: float = 1.0, guard: Callable[..., Any] = guard_of_phantoms) -> Iterator[None]:
    """While this lasts the network is an architecture like the others, every format is built in this process, and what
    passed is not timed again. temperature: of a checkpoint, as `python -m train.evaluate` would have fitted it."""
    from stageproof.export import run as pipeline
    from stageproof.export.formats import build as produce
    from stageproof.export.reference import source as reference_loading
    from stageproof.train.networks import ARCHITECTURES

    real = reference_loading.load_reference

    def load_reference(options):
        reference = real(options)
        info = reference.info if options.rebuild else replace(reference.info, temperature=temperature)
        return replace(reference, info=info)

    with ExitStack() as stack:
        for module in (pipeline, produce):
            stack.enter_context(patch.object(module, "load_reference", load_reference))
        stack.enter_context(patch.object(pipeline, "write_guard", guard))
        stack.enter_context(patch.object(pipeline, "timed", lambda folder, artifacts, *rest: list(artifacts)))
        stack.enter_context(patch.object(pipeline, "run_in_child_process", lambda task, given, log: task(*given)))
        stack.enter_context(known_to_runtime())
        stack.enter_context(patch.dict(ARCHITECTURES, {NAME: build}))
        yield


def options(source: Path, out: Path, to: tuple[str, ...] = FORMATS, **more: Any):
    """For `export.run.export`."""
    from stageproof.export.options import Options

    given = {"architecture": NAME, "image_size": SIZE, "parity_images": IMAGES, "threads": 1, **more}
    return Options(source=source, to=to, out=out, **given)


def make(source: Path, out: Path, to: tuple[str, ...] = FORMATS, *, temperature: float = 1.0, **more: Any) -> list[str]:
    """Export the checkpoint `source` to `out`, which must succeed; what the export logs."""
    from stageproof.export.run import export

    with known(temperature), logged() as said:
        exported = export(options(source, out, to, **more))
    failed = [outcome.reason for outcome in exported.outcomes if outcome.status != "passed"]
    assert not failed, failed
    return said
