"""The command-line options of `python -m export`, as a dataclass. Does not import torch, so --help is fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stageproof.runtime.cli.lists import reject_repeated_lists
from stageproof.runtime.predictor import DEFAULT_BUNDLE
from stageproof.runtime.text.hints import program

IMAGE_SIZE = 224
"""Input height and width that are assumed for a checkpoint of another program."""
FEW, MANY = 512, 1280
"""Default number of comparison images: FEW for fp32 only, where no prediction may change; MANY where a precision is
judged by an upper bound."""


@dataclass(frozen=True)
class Options:
    """The source, formats, precisions and output of an export."""

    source: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN|CHECKPOINT]")] = None
    """A run directory, or a file of other code: a checkpoint (.pth, .safetensors, …), an ONNX or TorchScript file.
    Default: the newest run."""
    remote: Annotated[str | None, tyro.conf.arg(name="from", metavar="SOURCE")] = None
    """In place of RUN: a path, or hf:OWNER/NAME[@REVISION], a run in a repository of the Hugging Face Hub.
    It is downloaded."""
    to: tuple[str, ...] = ("onnx",)
    """Formats: one or more of onnx, openvino, torchscript, torch-export, pytorch, aotinductor, tensorrt, or all."""
    precision: tuple[str, ...] = ("fp32",)
    """Precisions: one or more of fp32, fp16, bf16, int8, fp8, or all that each format supports."""
    with_preprocessing: bool = False
    """Also write a file (model.pixels.onnx, …) with preprocessing for each .onnx, .xml and .ts.
    It takes uint8 images of any size, greyscale or colour, and is for programs without this library."""
    with_softmax: bool = False
    """With --with-preprocessing: these files return probabilities, scaled by the temperature, instead of logits."""
    out: Path = Path(DEFAULT_BUNDLE)
    """The bundle to write. A bundle of the same model is extended, one of another model is replaced."""
    architecture: str | None = None
    """Architecture of a foreign checkpoint. Default: told from the names and shapes of its tensors."""
    checkpoint_key: str | None = None
    """Entry (such as model_ema) or prefix of the state dict to export, if a checkpoint has several."""
    image_size: int | None = None
    """Input height and width of a foreign checkpoint. Default: that of its position embedding, else 224."""
    labels: tuple[str, ...] = ()
    """Classes of a foreign checkpoint, in output order. Default: as it states them, or a file beside it.
    If neither does: of four outputs, the four stages in alphabetical order, as ImageFolder sorts them."""
    classes: tuple[str, ...] = ()
    """The classes in clinical order, the least severe first, or the name of a known set, such as cn-mci-ad.
    Needed only for classes of no known set, if their output order is not the clinical one."""
    positive: tuple[str, ...] = ()
    """Classes that count as positive in the two-way question. Default: those of the known set, else all but the first.
    """
    mean: tuple[float, ...] = ()
    """Mean per channel for the input of a foreign checkpoint, in [0, 1]. Default: ImageNet's, for three channels."""
    std: tuple[float, ...] = ()
    """Standard deviation per channel for the input of a foreign checkpoint. Default: as for --mean."""
    parity_data: Annotated[Path | None, tyro.conf.arg(aliases=("--data",))] = None
    """Comparison images: a folder of class folders, a folder of images, or a parquet file.
    Also the new location of the run's own data. Default: slices the run was not trained on.
    If its data is missing: synthetic phantoms, with a warning."""
    parity_images: int | None = None
    """Maximum number of comparison images, 14 or more, drawn from as many patients as possible.
    Default: 512 for fp32 alone, else 1280.
    fp16, bf16, int8 and fp8 need a minimum number of patients (docs/GATE.md)."""
    calibration_data: Path | None = None
    """Labelled images for int8 and fp8 calibration of a checkpoint without a run; a run uses its training slices.
    Images identical to comparison images are left out."""
    tolerance: float | None = None
    """Largest accepted difference of a probability, recorded in the bundle. Default: one per precision."""
    flip_tolerance: float | None = None
    """Largest accepted upper bound on the share of changed predictions, recorded in the bundle.
    Confidence is 95 % over all artifacts together; 0 accepts no change. Default: one per precision."""
    compute_capability: tuple[str, ...] = ("8.9",)
    """Compute capabilities of the GPUs to build a TensorRT for RTX engine for; building needs none of these GPUs."""
    compatible: bool = False
    """Build a TensorRT engine that also runs on newer GPUs and in newer TensorRT versions, somewhat slower.
    For TensorRT for RTX use --compute-capability instead."""
    timing_cache: Path | None = None
    """File for TensorRT's kernel timings, so that the next build takes seconds.
    TensorRT for RTX has none: it times no kernels at build time."""
    threads: int | None = None
    """CPU threads for checking and timing. Default: all CPUs available to this process."""
    rebuild: bool = False
    """Rebuild only the artifacts of the bundle at --out that are incompatible with this machine.
    These do not load, predict differently, or were checked in another engine version.
    Labels, input, architecture and temperature are the bundle's; --to and --precision are ignored."""
    sign: Path | None = None
    """Private elliptic-curve key (PEM) to sign the bundle with. Needs stageproof[sign]."""
    trust_code: bool = False
    """Load a TorchScript file as the source, and artifacts with code (.ts, .pt2, .engine) of the existing bundle, for
    --rebuild and for timing.
    Artifacts built by this export are always loaded."""
    json: bool = False
    """Print the result as one JSON object."""


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options parsed from `argv`. Exits with status 2 on a usage error."""
    reject_repeated_lists(Options, argv)
    return tyro.cli(
        Options,
        args=argv,
        prog=program("export"),
        description="Export a trained model to engine files and check their predictions.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
