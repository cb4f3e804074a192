"""The command line of `python -m benchmarks train`, as a dataclass: light, so that --help needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from stageproof.runtime.errors import InputError
from stageproof.runtime.text.hints import program


@dataclass(frozen=True)
class TrainingOptions:
    """What is trained on for the clock, and for how long."""

    data: Path | None = None
    """Folder of class folders, or .parquet in the Hugging Face image schema. Without it: phantoms made on the spot."""
    image_size: int = 224
    """Height and width of the network's input, pixels."""
    batch_size: int = 16
    """Slices a step, of every contender."""
    steps: int = 4
    """Steps of each contender's turn; each turn uses the same steps × batch-size slices."""
    rounds: int = 8
    """Turns of each contender."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of our loop and of the model in memory. auto: what `python -m train` takes here."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA when there is one."""
    threads: int | None = None
    """CPU threads for every contender. Without it: all this process may use."""
    out: Path | None = None
    """Write every raw sample, with hardware and versions, to this JSON file."""


def parse(argv: Sequence[str] | None = None) -> TrainingOptions:
    """The options on the command line. Exits with 2 on a usage error.

    Raises InputError for numbers that measure nothing.
    """
    options: TrainingOptions = tyro.cli(
        TrainingOptions,
        args=argv,
        prog=f"{program('benchmarks')} train",
        description="Measure training of ResNet50: our loop, a plain PyTorch loop, and the arithmetic alone.",
    )
    smallest = {"--image-size": (options.image_size, 32), "--batch-size": (options.batch_size, 4)}
    smallest |= {"--steps": (options.steps, 1), "--rounds": (options.rounds, 2)}
    for option, (value, least) in smallest.items():
        if value < least:
            raise InputError(f"{option} is {value}, expected {least} or more.")
    return options
