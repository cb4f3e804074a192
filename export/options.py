"""The command line of `python -m export`, as a dataclass: light, so that --help needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from runtime.predictor import DEFAULT_BUNDLE


@dataclass(frozen=True)
class Options:
    """What to export, and to what."""

    source: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[RUN|CHECKPOINT]")] = None
    """A run directory, or a state dict (.pth, .safetensors) that other code saved. Without it: the newest run."""
    to: tuple[str, ...] = ("onnx",)
    """Formats: onnx, torchscript, or several of them."""
    out: Path = Path(DEFAULT_BUNDLE)
    """The bundle. One of the same model gains the new artifacts, one of another model is replaced."""
    architecture: Literal["resnet50"] = "resnet50"
    """Of a foreign checkpoint; a run knows its own."""
    image_size: int = 224
    """Of a foreign checkpoint: height and width it was trained at."""
    labels: tuple[str, ...] = ()
    """Of a foreign checkpoint: its classes in output order. Without it: alphabetical, as ImageFolder gives them."""
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
        description="Export a model; every artifact must decide as the original does.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )
