"""`python -m train.crossvalidate`: k-fold cross-validation. Trains each fold and evaluates it on held-out patients."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import InputError, StageproofError
from stageproof.runtime.system.work_folders import write_together
from stageproof.runtime.text.hints import program
from stageproof.train.config.preconditions import PACKAGES, check_training
from stageproof.train.terminal.messages import shown

if TYPE_CHECKING:
    from stageproof.train.config.options import Options

logger = logging.getLogger("stageproof.train.crossvalidate")  # __name__ is __main__ under python -m

FACTS, PAGE = "crossvalidation.json", "crossvalidation.html"


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, or stopped by a signal after writing a checkpoint; 1 a run failed; 2 invalid input."""
    parser = _parser()
    own, rest = parser.parse_known_args(argv)
    if own.folds < 2:
        parser.error(f"--folds is {own.folds}, expected 2 or more")
    if own.resamples < 200:
        parser.error(f"--resamples is {own.resamples}, expected 200 or more")
    try:
        require("train", *PACKAGES)
        runs = _runs(own.out, own.folds, rest)
        from stageproof.train.engine.loop import Interrupted
        from stageproof.train.launch import is_leader

        try:
            _train(runs)
        except Interrupted as stopped:
            logger.info(f"Stopped in {stopped} after a checkpoint. Run the same command to resume.")
            return 0
        if is_leader():
            facts = _evaluate([run for run, _ in runs], own.out)
            _show(facts, own.out, as_json=own.json)
    except StageproofError as error:
        return report_error(error)
    except KeyboardInterrupt:
        logger.info("Interrupted before the first step. Run the same command to resume.")
        return 1
    return 0


def _runs(out: Path, folds: int, arguments: Sequence[str]) -> list[tuple[Path, Options | None]]:
    """The run directory of each fold, and its options; None for a finished fold.

    Raises CheckpointError or InputError if a fold was started with other options.
    """
    from stageproof.train.config.command_line import parse
    from stageproof.train.config.options import Options
    from stageproof.train.config.saved_options import check_same, options_of
    from stageproof.train.runs.record import read_record

    refused = [name for name in ("--fold", "--resume") if any(one.split("=")[0] == name for one in arguments)]
    if refused:
        raise InputError(f"{refused[0]} is not allowed: all folds are trained, and unfinished folds are resumed.")
    runs: list[tuple[Path, Options | None]] = []
    for fold in range(1, folds + 1):
        run = out / f"fold-{fold}"
        words = [*arguments, "--fold", f"{fold}/{folds}", "--out", str(run)]
        if run.exists():
            check_same(parse(words), Options(**options_of(read_record(run), run)), str(run))
        options = None if run.exists() else parse([*words, "--resume"], extend=False)
        if options is not None and (options.repeat > 1 or options.show_config):
            raise InputError("--repeat and --show-config are not options of a cross-validation. Leave them out.")
        if options is not None:
            check_training(options)
        runs.append((run, options))
    return runs


def _train(runs: Sequence[tuple[Path, Options | None]]) -> None:
    from stageproof.train.distributed.rendezvous import check_network
    from stageproof.train.launch import launch

    for number, (run, options) in enumerate(runs, 1):
        if options is not None:
            logger.info(f"fold {number} of {len(runs)}: {run}")
            if warning := check_network(options.trust_network):
                logger.warning(warning)
            launch(options)


def _evaluate(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    """The figures, also written to `out`. Raises InputError where they cannot be."""
    from stageproof.train.cards.run_index import INDEX
    from stageproof.train.crossvalidate.page import page
    from stageproof.train.crossvalidate.pooling import pool
    from stageproof.train.runs.finding import described
    from stageproof.train.runs.record import read_record

    records = [read_record(run) for run in runs]
    for run, record in zip(runs, records, strict=True):
        logger.info(described(run, record))
    facts = pool(runs)
    links = [f"{run.name}/{INDEX}" for run in runs if (run / INDEX).is_file()]
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    write_together(out, {FACTS: text, PAGE: page(facts, records, links)})
    return facts


def _show(facts: dict[str, Any], out: Path, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    from textwrap import wrap

    from stageproof.train.crossvalidate.text import lines, warnings

    for warning in warnings(facts):
        print("\n".join(wrap(warning, 80)) + "\n")
    print("\n".join(lines(facts)))
    print(f"\nreport  {out / PAGE}\nfigures {out / FACTS}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("train.crossvalidate"),
        description="k-fold cross-validation: train a network for each fold and evaluate it on the patients that this "
        "fold holds out.",
        epilog=f"All other options are those of {program('train')}, except for --fold and --resume. To resume an "
        "interrupted cross-validation, run the same command again.",
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the runs (fold-1, fold-2, …) and metrics")
    parser.add_argument("--folds", type=int, default=5, help="number of folds (default: 5)")
    parser.add_argument(
        "--resamples", type=int, default=2000, help="ignored: intervals are computed without resampling"
    )
    parser.add_argument("--json", action="store_true", help="print the metrics as one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="train"))
