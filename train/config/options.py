"""The options of `python -m train`, as a dataclass. Does not import torch, so that --help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import LabelSet, named_or_listed
from stageproof.train.recipes import Recipe


@dataclass(frozen=True)
class Extension:
    """More epochs for a stage of a run that was resumed, as in `run.json`."""

    stage: str
    before: int
    """Number of epochs before."""
    epochs: int
    """Number of epochs now."""
    schedule: str
    """``unchanged``: the learning rates are those of a run of `epochs` epochs; ``restarted``: the epochs after `before`
    are a further cycle of the schedule."""
    optimizer: str
    """``kept``; ``new``: started anew, from the weights of a finished run; ``not begun``: the stage had not begun."""


@dataclass(frozen=True)
class Options:
    """The options of a training run: `settings` are the recipe's values, the rest does not depend on the recipe."""

    settings: Annotated[Recipe, tyro.conf.arg(name="")]
    """Values of the recipe, with the changes made on the command line."""
    config: Path | None = None
    """Options in a YAML file, or in run.json or options.json of a run. The command line overrides them.
    Of a run's file, out and json are not used."""
    show_config: bool = False
    """Print all options as YAML, which --config accepts, and exit."""
    data: Path | None = None
    """Training data: a folder with a subfolder for each class, parquet files, a folder of save_to_disk, a .csv file
    (columns path, label and patient), or a .zip of one of these. If omitted: synthetic slices (phantoms)."""
    groups: Path | None = None
    """CSV file with the columns file and patient (or group), for --data.
    If omitted: patient ids found in the data, else patients identified from image similarity."""
    patient_pattern: str | None = None
    """Regular expression with a named group (?P<patient>…) that extracts patient ids from the file paths of --data."""
    classes: str | None = None
    """Classes of --data in clinical order, the least severe first, separated by commas; or the name of a built-in set:
    four-stages, demented-or-not, cn-ad, cn-mci-ad, cn-emci-lmci-ad, cdr and others.
    If omitted: the built-in set that the class names in the data belong to."""
    positive: str | None = None
    """Classes that count as positive in the two-way question, such as demented or not, separated by commas.
    If omitted: those of the built-in set, else all classes but the first."""
    recipe: str = "demo"
    """Named set of defaults: resnet50-two-stage (default with --data), resnet34-gray, or demo (default without).
    This help shows the defaults of the recipe named on the command line."""
    weights: str = "none"
    """Initial weights: none (random), imagenet (torchvision's, downloaded if not cached), or a weights file."""
    out: Path | None = None
    """Run directory to create. If omitted: runs/TIME-RECIPE."""
    resume: bool = False
    """Resume the interrupted run at --out, or the most recent one, with its own options.
    If there is no run at --out, start one. --head.epochs and --full.epochs may be raised.
    A finished run at --out with more epochs is continued in a new run directory, such as OUT-full-20."""
    checkpoint_minutes: float = 10.0
    """Maximum time between checkpoints, minutes.
    A checkpoint is also written after each epoch if writing is fast compared with training."""
    split: Literal["patient", "slice"] = "patient"
    """Unit of the split. patient: all slices of a patient are on one side.
    slice: slices are split individually, as in published work; the same patients appear in training and validation."""
    fold: str = "1/5"
    """Validation fold i of k folds, as i/k."""
    seed: int = 0
    """Random seed of the phantoms, the split, the initial weights, the order of the slices and the augmentation."""
    data_seed: int | None = None
    """Random seed of the phantoms and the split. If omitted: --seed."""
    repeat: int = 1
    """Train this many runs with the seeds SEED, SEED + 1, … on the same data and split, in OUT/seed-SEED, …, and write
    their mean and its interval. With --resume: continue where it stopped."""
    shuffle_labels: int | None = None
    """Negative control: permute the labels between patients with this seed.
    Accuracy should then be at chance. The run cannot be exported."""
    max_unreadable: float = 0.05
    """Maximum share of unreadable files; the run stops if there are more."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Training precision. auto: bf16 if the device supports it, else fp16 on a GPU and fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on. auto: cuda if available, else cpu."""
    devices: int = 0
    """Number of processes on this machine, one for each device. 0: one for each visible GPU, or one on the CPU."""
    trust_network: bool = False
    """With torchrun on several machines: accept a missing MASTER_ADDR, or one that means all network interfaces.
    Anybody who can reach these ports can run code."""
    cache_limit: float = 8.0
    """Gigabytes of decoded slices kept in memory. A larger data set is kept in a file in the temporary folder."""
    compile: bool = False
    """Compile the network with torch.compile: slower to start, faster afterwards."""
    tensorboard: bool = False
    """Also write metrics for TensorBoard into the run directory."""
    energy: bool = False
    """Estimate energy use and CO2 emissions with CodeCarbon (offline) and record them in run.json."""
    country: str = "USA"
    """Country whose electricity mix --energy assumes, as an ISO 3166 alpha-3 code."""
    json: bool = False
    """Print the result as one JSON object."""
    extends: Annotated[Path | None, tyro.conf.Suppress] = None
    """The finished run that this run continues with more epochs."""
    extended: Annotated[tuple[Extension, ...], tyro.conf.Suppress] = ()
    """What was extended, in order."""

    @property
    def label_set(self) -> LabelSet | None:
        """The label set of --classes and --positive; None if it is recognised from the data. Raises InputError."""
        return None if self.classes is None else named_or_listed(self.classes, self.positive or "")

    @property
    def positive_classes(self) -> tuple[str, ...]:
        """The names in --positive, as given; () for the usual ones."""
        return tuple(part.strip() for part in (self.positive or "").split(",") if part.strip())

    @property
    def fold_of(self) -> tuple[int, int]:
        """(fold from 0, number of folds). Raises InputError unless `fold` has the form i/k, such as 1/5."""
        first, _, second = self.fold.partition("/")
        if not (first.isdigit() and second.isdigit() and 1 <= int(first) <= int(second) and int(second) >= 2):
            raise InputError(f"--fold is {self.fold!r}, expected i/k with 1 ≤ i ≤ k and k at least 2, such as 1/5.")
        return int(first) - 1, int(second)
