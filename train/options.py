"""The command line of `python -m train`, as a dataclass: light, so that --help needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from runtime.errors import InputError
from train.recipes import RECIPES, Recipe


@dataclass(frozen=True)
class Options:
    """What a run is told, apart from its recipe."""

    settings: Annotated[Recipe, tyro.conf.arg(name="")]
    """The recipe's own values."""
    data: Path | None = None
    """Folder of class folders, or .parquet in the Hugging Face image schema. Without it: phantoms made on the spot."""
    recipe: str = "demo"
    """Named recipe whose defaults are shown here: resnet50-two-stage (with --data) or demo (without)."""
    weights: str = "none"
    """Where the network starts: none (random), imagenet (torchvision's, fetched if not cached), or a file."""
    out: Path | None = None
    """Run directory to write. Without it: runs/TIME-RECIPE."""
    split: Literal["patient", "slice"] = "patient"
    """What is kept apart. 'slice' is the published protocol: it puts the same people on both sides."""
    fold: str = "1/5"
    """Which part of how many is for validation."""
    seed: int = 0
    """Seeds the phantoms, the split, the weights, the order and the augmentation."""
    max_unreadable: float = 0.05
    """Share of files that may be unreadable before the run stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic. auto: bf16 where the device has it, fp16 on other GPUs, fp32 on other CPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA when there is one."""
    json: bool = False
    """Print the result as one JSON object."""

    @property
    def fold_of(self) -> tuple[int, int]:
        """(fold from 0, folds). Raises InputError unless `fold` reads like 1/5."""
        first, _, second = self.fold.partition("/")
        if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second) and int(second) >= 2):
            raise InputError(f"--fold is {self.fold!r}, expected i/k with 1 ≤ i ≤ k and k at least 2, such as 1/5.")
        return int(first) - 1, int(second)


_DESCRIPTION = "Train a four-stage Alzheimer classifier on brain-MRI slices. Research only."


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options on the command line, over the defaults of the recipe they name. Exits with 2 on a usage error."""
    import argparse
    import sys

    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--data")
    first.add_argument("--recipe")
    first.add_argument("--weights", default="none")
    known = first.parse_known_args(arguments)[0]
    name = known.recipe or ("resnet50-two-stage" if known.data else "demo")
    if name not in RECIPES:
        first.prog = "python -m train"
        first.error(f"no recipe is called {name!r}. Recipes: {', '.join(RECIPES)}.")
    default = Options(settings=RECIPES[name](known.weights != "none"), recipe=name)
    return tyro.cli(Options, args=arguments, prog="python -m train", description=_DESCRIPTION, default=default)
