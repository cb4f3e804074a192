"""`python -m benchmarks`: measures a bundle and alternative programs; `… train`: measures the training loop; `…
serving`: measures the service beside other servers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.cli.sources import named_or_default
from stageproof.runtime.errors import StageproofError
from stageproof.train.terminal.messages import shown

if TYPE_CHECKING:
    from stageproof.benchmarks.options import Options


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 a measurement or the check of --compare (--fail-on) failed, 2 invalid input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        named = {"train": _train, "serving": _serving}.get(arguments[0] if arguments else "")
        return named(arguments[1:]) if named else _inference(arguments)
    except StageproofError as error:
        return report_error(error)


def _inference(arguments: list[str]) -> int:
    require("benchmarks", "tyro", "scipy")
    from stageproof.benchmarks.options import parse

    options = parse(arguments)
    if options.compare:
        return _compare(*options.compare, options.margin, options.fail_on)
    from stageproof.benchmarks.records.read import parsed, read_record
    from stageproof.benchmarks.reports.text import lines
    from stageproof.benchmarks.reports.write import write_reports

    record = read_record(options.report) if options.report else parsed(_measured(options), "this run")
    write_reports(record, options.html, options.markdown)
    for line in lines(record):
        print(line)
    for note in record.facts.get("notes") or ():
        print(fill(note, 80), file=sys.stderr)
    return 0


def _measured(options: Options) -> dict[str, Any]:
    from stageproof.benchmarks.preconditions import check

    options = replace(options, bundle=named_or_default(options.bundle, options.remote), remote=None)
    check(options)
    from stageproof.benchmarks.inference.suite import run
    from stageproof.benchmarks.records.schema import write

    record = run(options)
    if options.out:
        write(record, options.out)
    return record


def _compare(before: Path, after: Path, margin: float, fail_on: str) -> int:
    from stageproof.benchmarks.compare.verdicts import compare, fails
    from stageproof.benchmarks.records.read import read_record
    from stageproof.benchmarks.reports.comparison_text import lines

    found = compare(read_record(before), read_record(after), margin)
    for line in lines(found, margin):
        print(line)
    return int(fails(found, unproven=fail_on == "unproven"))


def _train(arguments: list[str]) -> int:
    require("benchmarks", "tyro", "torch", "torchvision", "scipy")
    from stageproof.benchmarks.training.options import parse

    options = parse(arguments)
    from stageproof.benchmarks.training.suite import FORWARD, PLAIN, training
    from stageproof.benchmarks.training.table import table

    loops, stages, facts = training(options)
    for title, measured, baseline in (("training, per image", loops, PLAIN), ("stage 1, per image", stages, FORWARD)):
        for line in table(title, measured, next(entry for entry in measured if entry.name == baseline)):
            print(line)
        print()
    print(f"\n{options.rounds} rounds, {facts['cpus']} CPUs, load average {facts['load_average']}")
    return 0


def _serving(arguments: list[str]) -> int:
    require("benchmarks", "tyro", "scipy", "aiohttp")
    from stageproof.benchmarks.serving.options import parse

    options = parse(arguments)
    from stageproof.benchmarks.records.schema import write, write_text
    from stageproof.benchmarks.serving.analysis.record import parsed, read_record
    from stageproof.benchmarks.serving.analysis.tables import lines, markdown

    if options.report:
        record = read_record(options.report)
    else:
        from stageproof.benchmarks.serving.suite import run

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended, too
        measured = run(options)
        if options.out:
            write(measured, options.out)
        record = parsed(measured, "this run")
    if options.markdown:
        write_text(markdown(record), options.markdown)
    for line in lines(record):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="benchmarks"))
