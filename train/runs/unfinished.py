"""Runs in progress: where they are written, and whether they can go on. Light, so that --help needs no torch."""

from __future__ import annotations

from pathlib import Path

RUNS = Path("runs")
NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
OPTIONS = "options.json"


def partial_folder(run: Path) -> Path:
    """Where a run is written until it has its name."""
    return run.with_name(f".{run.name}.partial")


def finished_name(folder: Path) -> Path:
    """The run directory that `folder` will become."""
    return folder.with_name(folder.name.removeprefix(".").removesuffix(".partial"))


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can go on from `folder`."""
    return (folder / NEWEST).exists() or (folder / PREVIOUS).exists()
