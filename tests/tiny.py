"""A bundle of a network with 500 weights, made by the real `export` in seconds: for tests of what a bundle is.

    python -m tests.tiny OUT

made `tests/data/bundle-0.1` with the code of 0.1 (commit f0dbfcf).
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

import numpy as np

FORMATS = ("onnx", "openvino", "torchscript", "torch-export", "pytorch")
NAME = "tiny"
SIZE = 16
IMAGES = 16
CHANNELS = 8
DIGEST = "ab" * 32
"""Stands for the SHA-256 of the checkpoint, which these tests have none of."""


def network():
    """(N, 3, H, W) → (N, 4): one convolution, and a last layer fitted to phantoms so that decisions are firm."""
    import torch
    from torch import nn

    from export.images import phantoms, preprocessed
    from runtime.preprocess import InputSpec

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, CHANNELS, 3, 2, 1)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            self.fc = nn.Linear(CHANNELS, 4)

        def forward(self, images):
            return self.fc(self.maxpool(torch.relu(self.conv1(images))).mean((2, 3)))

    torch.manual_seed(0)
    model = Tiny().eval().requires_grad_(False)
    samples = phantoms(64)
    images = torch.from_numpy(preprocessed(samples, InputSpec.imagenet(SIZE)))
    features = model.maxpool(torch.relu(model.conv1(images))).mean((2, 3))
    wanted = nn.functional.one_hot(torch.from_numpy(samples.labels), 4).double() * 8 - 2
    columns = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    fitted = torch.linalg.lstsq(columns, wanted).solution.float()
    model.fc.weight.copy_(fitted[:-1].T)
    model.fc.bias.copy_(fitted[-1])
    return model


def reference(temperature: float = 1.25, labels: tuple[str, ...] = ()):
    """The network as `export.reference` would read it from a checkpoint."""
    from export.reference import Reference
    from runtime.labels import ALPHABETICAL
    from runtime.manifest import ModelInfo
    from runtime.preprocess import InputSpec

    info = ModelInfo(NAME, DIGEST, labels or ALPHABETICAL, InputSpec.imagenet(SIZE), temperature, 0.375)
    return Reference(network(), info, {"checkpoint": "tiny.pth"}, None)


def make(out: Path, formats: tuple[str, ...] = FORMATS, temperature: float = 1.25) -> None:
    """Write the bundle at `out`: every format in one process, timed once each, with a guard of 16 phantoms."""
    from export import pipeline, produce
    from export.images import phantoms
    from export.options import Options
    from runtime.backends.networks import _SHAPES, _Shape
    from runtime.digests import sha256_file
    from runtime.guard import fit
    from runtime.images import read_image
    from runtime.manifest import Document

    made = reference(temperature)

    def guard(reference, folder):
        samples = phantoms(IMAGES)
        pictures = [read_image(samples.read(index)) for index in range(len(samples))]
        fit(pictures, np.arange(len(samples))).write(folder / "guard.npz")
        return Document("guard.npz", sha256_file(folder / "guard.npz")), ""

    with ExitStack() as stack:
        for module in (pipeline, produce):
            stack.enter_context(patch.object(module, "load_reference", lambda options: made))
        stack.enter_context(patch.object(pipeline, "write_guard", guard))
        stack.enter_context(patch.object(pipeline, "timed", lambda folder, artifacts, *rest: list(artifacts)))
        stack.enter_context(patch.object(pipeline, "in_own_process", lambda task, given, log, say: task(*given, say)))
        stack.enter_context(patch.dict(_SHAPES, {NAME: _Shape("conv1", (), (), "", ("fc",))}))
        options = Options(source=out.parent / "tiny.pth", to=formats, out=out, parity_images=IMAGES, threads=1)
        exported = pipeline.export(options)
    failed = [outcome.reason for outcome in exported.outcomes if outcome.status != "passed"]
    assert not failed, failed


if __name__ == "__main__":
    make(Path(sys.argv[1]))
