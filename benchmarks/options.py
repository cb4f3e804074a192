"""The command line of `python -m benchmarks`, as a dataclass: light, so that --help needs no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from runtime.predictor import DEFAULT_BUNDLE


@dataclass(frozen=True)
class Options:
    """What to measure, and for how long."""

    bundle: Annotated[Path, tyro.conf.Positional] = Path(DEFAULT_BUNDLE)
    """The bundle to measure: every artifact in every backend that is here."""
    run: Path | None = None
    """Run it was exported from, for the comparison with eager PyTorch. Without it: looked for in runs/."""
    rounds: int = 100
    """Timed answers of each contender, all contenders in turn."""
    threads: int | None = None
    """CPU threads for every contender. Without it: all this process may use."""
    out: Path | None = None
    """Write every raw sample, with hardware and versions, to this JSON file."""


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options on the command line. Exits with 2 on a usage error."""
    return tyro.cli(
        Options,
        args=argv,
        prog="python -m benchmarks",
        description="Measure the Predictor beside what users would run instead.",
    )
