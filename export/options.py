"""The command line of `python -m export`, as a dataclass: light, so that --help needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from runtime.predictor import DEFAULT_BUNDLE


@dataclass(frozen=True)
class Options:
    """What to export, and to what."""

    source: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN|CHECKPOINT]")] = None
    """A run directory, or a state dict (.pth, .safetensors) that other code saved. Without it: the newest run."""
    to: tuple[str, ...] = ("onnx",)
    """Formats: onnx, openvino, torchscript, torch-export, tensorrt, several of them, or all."""
    precision: tuple[str, ...] = ("fp32",)
    """Precisions: fp32, fp16, bf16, int8, several of them, or all that each format has."""
    out: Path = Path(DEFAULT_BUNDLE)
    """The bundle. One of the same model gains the new artifacts, one of another model is replaced."""
    architecture: str = "resnet50"
    """Of a foreign checkpoint; a run knows its own."""
    image_size: int = 224
    """Of a foreign checkpoint: height and width it was trained at."""
    labels: tuple[str, ...] = ()
    """Of a foreign checkpoint: its classes in output order. Without it: alphabetical, as ImageFolder gives them."""
    mean: tuple[float, ...] = ()
    """Of a foreign checkpoint: mean of its input in [0, 1], a number a channel. Without it: ImageNet's, for three."""
    std: tuple[float, ...] = ()
    """Of a foreign checkpoint: standard deviation, likewise."""
    parity_data: Path | None = None
    """Images to compare on: a folder of class folders, a folder of images, or a parquet file. Without it: slices the
    run did not train on, where its data is at hand, and phantoms otherwise."""
    parity_images: int = 512
    """At most so many of them."""
    calibration_data: Path | None = None
    """Images to calibrate int8 on, for a checkpoint that has no run: labelled, and not those of --parity-data. A run
    is calibrated on its own training slices."""
    tolerance: float | None = None
    """Largest difference of a probability to accept, in place of each precision's own. It is recorded."""
    flip_tolerance: float | None = None
    """Largest upper 95 % bound on the share of changed decisions to accept, in place of each precision's own. It is
    recorded. 0 accepts no changed decision at all."""
    compute_capability: str = "8.9"
    """Of the GPU that a TensorRT for RTX engine is built for on a machine without one."""
    threads: int | None = None
    """CPU threads for checking and timing. Without it: all this process may use."""
    json: bool = False
    """Print the result as one JSON object."""


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options on the command line. Exits with 2 on a usage error."""
    return tyro.cli(
        Options,
        args=argv,
        prog="python -m export",
        description="Export a trained model; check that each artifact decides as it does.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
