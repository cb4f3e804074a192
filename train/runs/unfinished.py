"""Paths of unfinished runs, and whether they can be resumed. Does not import torch, so that --help is fast."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")
NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
OPTIONS = "options.json"


def partial_folder(run: Path) -> Path:
    """The folder that a run is written to until it is finished."""
    return run.with_name(f".{run.name}.partial")


def finished_name(folder: Path) -> Path:
    """The run directory that `folder` will become."""
    return folder.with_name(folder.name.removeprefix(".").removesuffix(".partial"))


def has_checkpoint(folder: Path) -> bool:
    """Whether the run in `folder` can be resumed."""
    return (folder / NEWEST).exists() or (folder / PREVIOUS).exists()
