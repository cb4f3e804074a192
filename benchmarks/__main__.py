"""`python -m benchmarks`: the newest bundle, beside what users would run instead; `… train`: the training loop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from runtime.command import exit_status, say, told
from runtime.errors import StageproofError
from runtime.extras import require

if TYPE_CHECKING:
    from benchmarks.options import Options


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a measurement or what --compare checks (--fail-on) failed, 2 invalid input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _train(arguments[1:]) if arguments[:1] == ["train"] else _inference(arguments)
    except StageproofError as error:
        return told(error)


def _inference(arguments: list[str]) -> int:
    require("benchmarks", "tyro", "scipy")
    from benchmarks.options import parse

    options = parse(arguments)
    if options.compare:
        return _compare(*options.compare, options.margin, options.fail_on)
    from benchmarks.report_reading import parsed, read_record
    from benchmarks.report_text import lines
    from benchmarks.report_writing import write_reports

    record = read_record(options.report) if options.report else parsed(_measured(options), "this run")
    write_reports(record, options.html, options.markdown)
    for line in lines(record):
        print(line)
    for note in record.facts.get("notes") or ():
        print(fill(note, 80), file=sys.stderr)
    return 0


def _measured(options: Options) -> dict[str, Any]:
    from benchmarks.preconditions import check

    check(options, say)
    from benchmarks.record import write
    from benchmarks.suite import run

    record = run(options, say)
    if options.out:
        write(record, options.out)
    return record


def _compare(before: Path, after: Path, margin: float, fail_on: str) -> int:
    from benchmarks.compare import compare, fails
    from benchmarks.compare_text import lines
    from benchmarks.report_reading import read_record

    found = compare(read_record(before), read_record(after), margin)
    for line in lines(found, margin):
        print(line)
    return int(fails(found, unproven=fail_on == "unproven"))


def _train(arguments: list[str]) -> int:
    require("benchmarks", "tyro", "torch", "torchvision", "scipy")
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
    sys.exit(exit_status(main, extra="benchmarks"))
