"""The command-line options of `python -m benchmarks train`, as a dataclass. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import named_or_listed
from stageproof.runtime.text.hints import program


@dataclass(frozen=True)
class TrainingOptions:
    """Data, size and duration of the measurement."""

    data: Path | None = None
    """Folder of class folders, or .parquet in the Hugging Face image schema. Default: generated phantoms."""
    classes: str = ""
    """Classes of the data in clinical order, such as CN,MCI,AD, or a built-in label set. Default: from the data."""
    image_size: int = 224
    """Height and width of the network's input in pixels."""
    batch_size: int = 16
    """Batch size of every contender."""
    steps: int = 4
    """Training steps per contender and round; every round uses the same steps × batch-size slices."""
    rounds: int = 8
    """Number of rounds; each runs every contender once."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of all contenders except the plain fp32 loop. auto: as `python -m train` chooses here."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device. auto: CUDA if available."""
    threads: int | None = None
    """CPU threads for every contender. Default: all CPUs available to this process."""
    out: Path | None = None
    """Write every raw sample, with hardware and versions, to this JSON file."""


def parse(argv: Sequence[str] | None = None) -> TrainingOptions:
    """The options parsed from `argv`. Exits with status 2 on a usage error.

    Raises InputError for numbers out of range.
    """
    options: TrainingOptions = tyro.cli(
        TrainingOptions,
        args=argv,
        prog=f"{program('benchmarks')} train",
        description="Measure training: Stageproof's loop, a plain loop, the arithmetic alone.",
    )
    if options.classes:
        named_or_listed(options.classes)
    smallest = {"--image-size": (options.image_size, 32), "--batch-size": (options.batch_size, 4)}
    smallest |= {"--steps": (options.steps, 1), "--rounds": (options.rounds, 2)}
    for option, (value, least) in smallest.items():
        if value < least:
            raise InputError(f"{option} is {value}, expected {least} or more.")
    return options
