"""`python -m benchmarks`: the newest bundle, beside what users would run instead; `… train`: the training loop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from textwrap import fill

from runtime.errors import NeuroStageError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 2 what it was given cannot be measured."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _train(arguments[1:]) if arguments[:1] == ["train"] else _inference(arguments)
    except NeuroStageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


def _inference(arguments: list[str]) -> int:
    from benchmarks.options import parse

    options = parse(arguments)
    from benchmarks.record import write
    from benchmarks.suite import run
    from benchmarks.text import lines

    record = run(options, lambda line: print(line, file=sys.stderr))
    if options.out:
        write(record, options.out)
    for line in lines(record):
        print(line)
    for note in record["notes"]:
        print(fill(note, 80), file=sys.stderr)
    return 0


def _train(arguments: list[str]) -> int:
    from benchmarks.training_options import parse

    options = parse(arguments)
    from benchmarks.report import table
    from benchmarks.training import FORWARD, PLAIN, training

    loops, stages, facts = training(options)
    for title, measured, baseline in (("training, an image", loops, PLAIN), ("stage 1, an image", stages, FORWARD)):
        for line in table(title, measured, next(entry for entry in measured if entry.name == baseline)):
            print(line)
        print()
    print(f"\n{options.rounds} rounds, {facts['cpus']} CPUs, load average {facts['load_average']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
