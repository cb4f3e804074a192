"""The options of `python -m train`, as a dataclass: light, so that --help needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stageproof.runtime.errors import InputError
from stageproof.train.recipes import Recipe


@dataclass(frozen=True)
class Options:
    """What a run is told, apart from its recipe."""

    settings: Annotated[Recipe, tyro.conf.arg(name="")]
    """The recipe's own values."""
    data: Path | None = None
    """Folder of class folders, .parquet in the Hugging Face image schema, or .csv of path, label and patient. Without
    it: phantoms made on the spot."""
    groups: Path | None = None
    """CSV file with the columns file and patient (or group), for --data. Without it: ids that the data has, or image
    similarity."""
    patient_pattern: str | None = None
    """Regular expression with a named group (?P<patient>…) that reads ids from the paths of --data."""
    recipe: str = "demo"
    """Named recipe, whose defaults are shown here: resnet50-two-stage, resnet34-gray, or demo (without --data)."""
    weights: str = "none"
    """Where the network starts: none (random), imagenet (torchvision's, fetched if not cached), or a file."""
    out: Path | None = None
    """Run directory to write. Without it: runs/TIME-RECIPE."""
    resume: bool = False
    """Go on with the interrupted run at --out, or with the last one: its options hold. Nothing at --out: begin."""
    checkpoint_minutes: float = 10.0
    """Longest time between checkpoints. One is written after an epoch too, where that takes little of the time."""
    split: Literal["patient", "slice"] = "patient"
    """What is kept whole. 'slice' is the published protocol: the same people are in training and validation."""
    fold: str = "1/5"
    """Which part of how many is for validation."""
    seed: int = 0
    """Seeds the phantoms, the split, the weights, the order and the augmentation."""
    shuffle_labels: int | None = None
    """A control: all people get each other's labels, by this seed. It must be at chance and is not exported."""
    max_unreadable: float = 0.05
    """Share of files that may be unreadable before the run stops."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic. auto: bf16 where the device has it, fp16 on other GPUs, fp32 on other CPUs."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA when there is one."""
    devices: int = 0
    """Processes on this machine, one a device. 0: every visible GPU, or one process on the CPU."""
    trust_network: bool = False
    """Under torchrun on several machines: allow a MASTER_ADDR that stands for every interface. Whoever reaches these
    ports can run code."""
    cache_limit: float = 8.0
    """Gigabytes of decoded slices kept in memory; more go to a file in the temporary folder."""
    compile: bool = False
    """Compile the network with torch.compile: slow to start, faster after."""
    tensorboard: bool = False
    """Write the figures for TensorBoard into the run directory as well."""
    energy: bool = False
    """Estimate energy and CO2 with CodeCarbon, offline, into run.json."""
    country: str = "USA"
    """ISO 3166 alpha-3 code of the country whose electricity --energy reckons with."""
    json: bool = False
    """Print the result as one JSON object."""

    @property
    def fold_of(self) -> tuple[int, int]:
        """(fold from 0, folds). Raises InputError unless `fold` reads like 1/5."""
        first, _, second = self.fold.partition("/")
        if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second) and int(second) >= 2):
            raise InputError(f"--fold is {self.fold!r}, expected i/k with 1 ≤ i ≤ k and k at least 2, such as 1/5.")
        return int(first) - 1, int(second)
