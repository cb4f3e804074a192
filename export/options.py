"""The command line of `python -m export`, as a dataclass: light, so that --help needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stageproof.runtime.predictor import DEFAULT_BUNDLE
from stageproof.runtime.text.hints import program

ARCHITECTURE, IMAGE_SIZE = "resnet50", 224
"""Of a foreign checkpoint, where the options do not say."""
FEW, MANY = 512, 1280
"""Images to compare on unless the user says otherwise: for fp32, of which none may change, and for a bound."""


@dataclass(frozen=True)
class Options:
    """What to export, and to what."""

    source: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN|CHECKPOINT]")] = None
    """A run directory, or a state dict (.pth, .safetensors) that other code saved. Without it: the newest run."""
    to: tuple[str, ...] = ("onnx",)
    """Formats: onnx, openvino, torchscript, torch-export, pytorch, aotinductor, tensorrt, several of them, or all."""
    precision: tuple[str, ...] = ("fp32",)
    """Precisions: fp32, fp16, bf16, int8, fp8, several of them, or all that each format has."""
    with_preprocessing: bool = False
    """Beside each .onnx, .xml and .ts also write one (model.pixels.onnx, …) that takes uint8 images of any size, grey
    or colour, and does all preprocessing itself: for programs without this library."""
    with_softmax: bool = False
    """Let those give probabilities, the run's temperature applied, in place of logits."""
    out: Path = Path(DEFAULT_BUNDLE)
    """The bundle. One of the same model gains the new artifacts, one of another model is replaced."""
    architecture: str | None = None
    """Of a foreign checkpoint; a run knows its own. Without it: resnet50."""
    image_size: int | None = None
    """Of a foreign checkpoint: height and width it was trained at. Without it: 224."""
    labels: tuple[str, ...] = ()
    """Of a foreign checkpoint: its classes in output order. Without it: alphabetical, as ImageFolder gives them."""
    mean: tuple[float, ...] = ()
    """Of a foreign checkpoint: mean of its input in [0, 1], a number a channel. Without it: ImageNet's, for three."""
    std: tuple[float, ...] = ()
    """Of a foreign checkpoint: standard deviation, likewise."""
    parity_data: Annotated[Path | None, tyro.conf.arg(aliases=("--data",))] = None
    """Images to compare on: a folder of class folders, a folder of images, or a parquet file; or the run's own data,
    where it has moved. Without it: slices the run did not train on, or phantoms where its data is gone, with a
    warning."""
    parity_images: int | None = None
    """At most so many of them, 14 or more, of as many people as there are. Without it: 512 for fp32, 1280 where any
    other precision is asked for. fp16, bf16, int8 and fp8 need enough people, or fewer cannot show that their
    predictions stay (docs/GATE.md)."""
    calibration_data: Path | None = None
    """Images to calibrate int8 on, for a checkpoint that has no run: labelled. Images with the pixels of one that is
    compared on are left out. A run is calibrated on its own training slices."""
    tolerance: float | None = None
    """Largest difference of a probability to accept, in place of each precision's own. It is recorded."""
    flip_tolerance: float | None = None
    """Largest upper bound on the share of changed predictions to accept, in place of each precision's own: 95 % over
    all artifacts together. It is recorded. 0 accepts no changed prediction at all."""
    compute_capability: tuple[str, ...] = ("8.9",)
    """Of the GPU, or GPUs, that a TensorRT for RTX engine is built for; it needs none of them here."""
    compatible: bool = False
    """Let a TensorRT engine also run on newer GPUs and in newer versions of TensorRT, somewhat slower. TensorRT for RTX
    has --compute-capability for that."""
    timing_cache: Path | None = None
    """Of TensorRT: a file to keep kernel timings in, so that the next build takes seconds. TensorRT for RTX times
    nothing when it builds."""
    threads: int | None = None
    """CPU threads for checking and timing. Without it: all this process may use."""
    rebuild: bool = False
    """Make again only what no longer fits this machine in the bundle at --out: what does not load, decides otherwise,
    or was checked in another version of its engine. The model's labels, input, architecture and temperature are those
    of the bundle. --to and --precision are not looked at."""
    sign: Path | None = None
    """A private elliptic-curve key (PEM) to sign the bundle with. Needs stageproof[sign]."""
    trust_code: bool = False
    """Also load artifacts that carry code (.ts, .pt2, .engine) of the bundle at --out, to look at them with --rebuild
    and to time them again. Those that this export builds are loaded in any case."""
    json: bool = False
    """Print the result as one JSON object."""


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options on the command line. Exits with 2 on a usage error."""
    return tyro.cli(
        Options,
        args=argv,
        prog=program("export"),
        description="Export a trained model; check that each artifact decides as it does.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
