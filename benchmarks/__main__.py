"""`python -m benchmarks`: the newest bundle, beside what users would run instead."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.options import parse
from runtime.errors import NeuroStageError


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 measured, 2 what it was given cannot be measured."""
    options = parse(argv)
    from benchmarks.latency import latency
    from benchmarks.measure import circumstances
    from benchmarks.report import table

    try:
        measured, baseline, notes = latency(options)
    except NeuroStageError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    for line in table(measured, baseline):
        print(line)
    facts = circumstances()
    print(f"\n{options.rounds} rounds, {facts['cpus']} CPUs, load average {facts['load_average']}")
    for note in notes:
        print(note, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
