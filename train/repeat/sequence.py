"""`repeat`: trains the runs of `--repeat N` one after the other, and writes their summary."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.system.work_folders import write_together
from stageproof.runtime.text.hints import command
from stageproof.train.config.options import Options
from stageproof.train.config.preconditions import check_training
from stageproof.train.config.saved_options import check_same, finished_options, resumed
from stageproof.train.runs.record import RECORD, read_record
from stageproof.train.runs.split_file import check_split, read_split
from stageproof.train.runs.unfinished import has_checkpoint, partial_folder

logger = logging.getLogger(__name__)

FACTS, PAGE = "repeat.json", "repeat.html"


def planned(options: Options) -> list[tuple[Path, Options | None]]:
    """The run directory of each seed, and its options; None for a finished run.

    Raises InputError or CheckpointError if there is no --out, if it exists without --resume, or if a run there has
    other options.
    """
    out = options.out
    if out is None:
        raise InputError("--repeat needs --out, the folder for its runs (seed-0, seed-1, …).")
    if not options.resume and (out.exists() or out.is_symlink()):
        again = command("train", "--repeat", options.repeat, "--resume", "--out", out)
        raise CheckpointError(
            f"{out} exists already. Give another --out, or continue there with the same options: {again}"
        )
    if (out / RECORD).exists():
        raise CheckpointError(f"{out} is a run, and --repeat needs a folder for its runs. Give another --out.")
    first = options.seed if options.data_seed is None else options.data_seed
    runs: list[tuple[Path, Options | None]] = []
    for seed in range(options.seed, options.seed + options.repeat):
        run = out / f"seed-{seed}"
        one = replace(options, seed=seed, data_seed=first, repeat=1, out=run)
        partial = partial_folder(run)
        if (run / RECORD).exists():
            check_same(one, finished_options(run), str(run))
            runs.append((run, None))
            continue
        if has_checkpoint(partial):
            began = replace(resumed(one, partial), out=run)
            check_same(one, began, str(run))
            one = began
        check_training(one)
        runs.append((run, one))
    others = sorted({path.name for path in out.glob("seed-*")} - {run.name for run, _ in runs})
    if others:
        logger.warning(f"{', '.join(others)} in {out} have seeds outside of this --repeat and are not summarised.")
    return runs


def repeat(
    runs: Sequence[tuple[Path, Options | None]], out: Path, launch: Callable[[Options], Any], leader: bool
) -> dict[str, Any] | None:
    """Train the runs that are not finished; the content of `repeat.json`, also written; None unless `leader`.

    Raises CheckpointError after a run whose data, split or recipe differs from that of the runs before.
    """
    from stageproof.train.repeat.summary import check_alike

    for number, (run, options) in enumerate(runs, 1):
        if options is not None:
            if leader:
                logger.info(f"run {number} of {len(runs)}: {run}")
            launch(options)
            if leader:  # after each run, since data that changed in between makes all later ones useless
                done = [one for one, _ in runs if (one / RECORD).exists()]
                check_alike(done, [read_record(one) for one in done])
                sides = {name: side for name, (_, side) in read_split(run).items()}
                check_split(done[0], list(sides), list(sides.values()), str(run))
    return _summarised([run for run, _ in runs], out) if leader else None


def _summarised(runs: Sequence[Path], out: Path) -> dict[str, Any]:
    from stageproof.train.cards.run_index import INDEX
    from stageproof.train.repeat.page import page
    from stageproof.train.repeat.summary import summary

    facts = summary(runs, [read_record(run) for run in runs])
    links = [f"{run.name}/{INDEX}" for run in runs if (run / INDEX).is_file()]
    text = json.dumps(facts, indent=2, allow_nan=False) + "\n"
    write_together(out, {FACTS: text, PAGE: page(facts, links)})
    return facts
