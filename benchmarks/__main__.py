"""`python -m benchmarks`: the newest bundle, beside what users would run instead; `… train`: the training loop."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from runtime.errors import NeuroStageError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 2 what it was given cannot be measured."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _train(arguments[1:]) if arguments[:1] == ["train"] else _latency(arguments)
    except NeuroStageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _latency(arguments: list[str]) -> int:
    from benchmarks.options import parse

    options = parse(arguments)
    from benchmarks.latency import latency
    from benchmarks.report import table

    measured, baseline, notes = latency(options)
    for line in table("from JPEG bytes to answer", measured, baseline):
        print(line)
    _say_circumstances(options.rounds)
    for note in notes:
        print(note, file=sys.stderr)
    return 0


def _train(arguments: list[str]) -> int:
    from benchmarks.training_options import parse

    options = parse(arguments)
    from benchmarks.report import table
    from benchmarks.training import FORWARD, PLAIN, training

    loops, stages = training(options)
    for title, measured, baseline in (("training, an image", loops, PLAIN), ("stage 1, an image", stages, FORWARD)):
        for line in table(title, measured, next(entry for entry in measured if entry.name == baseline)):
            print(line)
        print()
    _say_circumstances(options.rounds)
    return 0


def _say_circumstances(rounds: int) -> None:
    from benchmarks.measure import circumstances

    facts = circumstances()
    print(f"\n{rounds} rounds, {facts['cpus']} CPUs, load average {facts['load_average']}")


if __name__ == "__main__":
    sys.exit(main())
