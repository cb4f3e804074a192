"""The table of commands: name, module, the extra that installs its dependencies, and summary."""

from __future__ import annotations

from typing import NamedTuple


class Command(NamedTuple):
    """One command; ``MODULE.main(argv)`` returns its exit status."""

    module: str
    extra: str
    """Extra of setup.cfg; empty if numpy, Pillow and an engine are sufficient."""
    summary: str


COMMANDS = {
    "train": Command("stageproof.train.__main__", "train", "train on phantoms, or on your own slices"),
    "audit": Command("stageproof.train.audit.__main__", "train", "check a dataset for leakage before any training"),
    "evaluate": Command("stageproof.train.evaluate.__main__", "train", "evaluate a run on held-out patients"),
    "crossvalidate": Command("stageproof.train.crossvalidate.__main__", "train", "train and evaluate every fold"),
    "phantom": Command("stageproof.train.data.phantom.__main__", "", "write synthetic slices as image files"),
    "export": Command("stageproof.export.__main__", "export", "export a run or checkpoint to a bundle"),
    "bisect": Command(
        "stageproof.export.bisect.__main__", "export", "find the first layer of an artifact that differs"
    ),
    "predict": Command("stageproof.runtime.__main__", "", "predict images with a bundle"),
    "explain": Command("stageproof.runtime.explain.__main__", "explain", "show a Grad-CAM map over an image"),
    "push": Command("stageproof.train.push.__main__", "hub", "upload a run or a bundle to the Hugging Face Hub"),
    "log": Command("stageproof.runtime.audit.__main__", "", "verify an audit log of predictions, or create its key"),
    "score": Command("stageproof.serving.archive.__main__", "archive", "score an archive of images into parquet files"),
    "serve": Command("stageproof.serving.http.__main__", "serve", "serve a bundle over HTTP and gRPC"),
    "completion": Command("stageproof.completion", "", "print a completion script for bash or zsh"),
    "benchmark": Command("stageproof.benchmarks.__main__", "benchmarks", "measure latency and throughput of a bundle"),
}


class Source(NamedTuple):
    """A kind of model outside of this machine. ``MODULE.fetch(text, kind, copy=…)`` returns the local folder."""

    module: str
    extra: str
    """Extra of setup.cfg that installs `package`."""
    package: str
    """The package that the module imports."""


SOURCES = {"hf:": Source("stageproof.train.hub.fetch", "hub", "huggingface_hub")}
"""Prefix of a value of --from → its module. `stageproof.runtime.cli.sources` imports a module when a command is given
such a value: the runtime itself has no code that uses a network."""

MODULES = {
    command.module.removeprefix("stageproof.").removesuffix(".__main__"): name
    for name, command in COMMANDS.items()
    if command.module.endswith(".__main__")
}
"""Module name for `python -m` in a checkout → command."""
