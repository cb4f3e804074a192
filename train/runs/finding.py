"""Finds the run that a command works on: `chosen` returns the named run, or the one that finished last.

Every command that takes a run uses `chosen`, which also logs the run. Does not import torch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.text.hints import command, program
from stageproof.train.runs.record import RECORD, absolute, data_path, finished_at, read_record
from stageproof.train.runs.unfinished import (
    NEWEST,
    OPTIONS,
    PREVIOUS,
    RUNS,
    finished_name,
    has_checkpoint,
    partial_folder,
)

logger = logging.getLogger(__name__)

ELSEWHERE = ".elsewhere"
"""File in runs/ that lists, one path a line, the runs that commands started here wrote to other folders."""
_REMEMBERED = 100


def remember(run: Path, runs: Path = RUNS) -> None:
    """Record a run that is written outside of `runs`, so that `chosen` finds it.

    Nothing is recorded if `runs` does not exist: there is then no other run that could be taken for this one.
    """
    run = absolute(run)
    if not runs.is_dir() or run.parent == runs.resolve():
        return
    lines = [str(path) for path in _elsewhere(runs) if path != run]
    with suppress(OSError):  # `runs` is not writable: the run can still be trained
        (runs / ELSEWHERE).write_text("\n".join([*lines[-_REMEMBERED:], str(run)]) + "\n", encoding="utf-8")


def _elsewhere(runs: Path) -> list[Path]:
    """Runs, finished or not, that were written outside of `runs` and still exist."""
    try:
        paths = [Path(line) for line in (runs / ELSEWHERE).read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError):
        return []
    return [path for path in paths if path.exists() or partial_folder(path).exists()]


def finished_runs(runs: Path = RUNS) -> list[Path]:
    """The finished runs in `runs` and those recorded by `remember`, sorted by the time they finished."""
    found = [path.parent for path in runs.glob(f"*/{RECORD}")]
    found += [path for path in _elsewhere(runs) if (path / RECORD).is_file()]
    return sorted(found, key=finished_at)


def unfinished_runs(runs: Path = RUNS) -> list[Path]:
    """The folders of unfinished runs, sorted by the time of their last checkpoint."""
    found = [*runs.glob(".*.partial"), *(partial_folder(path) for path in _elsewhere(runs))]
    return sorted((folder for folder in found if folder.is_dir()), key=_written)


def interrupted_run(out: Path | None, runs: Path = RUNS) -> Path | None:
    """The folder of the interrupted run at `out`, or of the last interrupted run; None if there is no run at `out`.

    Raises CheckpointError if the run at `out` is finished, or if `out` is None and there is no interrupted run.
    """
    if out is not None:
        if out.exists():
            raise CheckpointError(f"{out} is finished: there is nothing to resume. Give another --out.")
        return partial_folder(out) if has_checkpoint(partial_folder(out)) else None
    folders = [folder for folder in unfinished_runs(runs) if has_checkpoint(folder)]
    if not folders:
        raise CheckpointError(
            f"{runs}/ contains no interrupted run with a checkpoint. Give the run: --resume --out RUN."
        )
    return folders[-1]


def newest_run(runs: Path = RUNS) -> Path:
    """The run that finished last. Raises CheckpointError if there is none."""
    found = finished_runs(runs)
    if not found:
        waiting = unfinished_runs(runs)
        more = f" {_unfinished(waiting[-1])}" if waiting else f" Give a run, or train one: {command('train')}"
        raise CheckpointError(f"{runs.absolute()} contains no finished run.{more}")
    return found[-1]


def run_of(digest: str, bundle: Path, runs: Path = RUNS) -> Path:
    """The run whose weights have this SHA-256, among `finished_runs`, beside the bundle, or in a runs/ beside it.

    Raises CheckpointError if there is none.
    """
    for run in (run for place in (runs, bundle.parent, bundle.parent / RUNS) for run in reversed(finished_runs(place))):
        with suppress(CheckpointError):  # the record of another run is damaged
            if read_record(run).get("weights_sha256") == digest:
                return run
    raise CheckpointError(
        f"The run that {bundle} was exported from is neither in {runs.absolute()} nor beside the bundle. Name the run "
        "or checkpoint."
    )


def run_of_file(path: Path, runs: Path = RUNS) -> Path | None:
    """The run with these weights (by SHA-256): that in the file's folder, or one of `finished_runs`; None if none."""
    places = [path.parent] if (path.parent / RECORD).is_file() else []
    places += reversed(finished_runs(runs))
    digest = sha256_file(path) if places else ""
    for run in places:
        with suppress(CheckpointError):  # the record of another run is damaged
            if read_record(run).get("weights_sha256") == digest:
                return run
    return None


def chosen(run: Path | None, runs: Path = RUNS) -> Path:
    """`run`, or the run that finished last if it is None. Logs which one it is.

    Warns if it is None and there is a newer, unfinished run.
    Raises CheckpointError if the run does not exist or is not finished.
    """
    if run is None:
        run = newest_run(runs)
        waiting = [folder for folder in unfinished_runs(runs) if _written(folder) > finished_at(run)[0]]
        if waiting:
            logger.warning(f"a newer run is unfinished: {_unfinished(waiting[-1])}")
    elif not (run / RECORD).is_file():
        raise CheckpointError(_why_not(run))
    logger.info(described(run, read_record(run)))
    return run


def evaluation_folder(run: Path, data: Path | None) -> Path:
    """Folder of the evaluation of a run when --out is not given."""
    return run / ("evaluation" if data is None else f"evaluation-{data.stem}")


def described(run: Path, record: Mapping[str, Any]) -> str:
    """One line: the run, when it finished, and its training data."""
    data = data_path(run, record)
    what = "phantoms" if data is None else str(data)
    return f"run {run}: finished {_time(finished_at(run)[0])}, trained on {what}"


def _why_not(run: Path) -> str:
    """The error message for a path that is not a finished run."""
    partial = run if run.name.startswith(".") and run.name.endswith(".partial") else partial_folder(run)
    if not run.exists() or run == partial:
        return (
            _unfinished(partial)
            if partial.is_dir()
            else f"{run} does not exist. Give a run directory, or, for {program('export')}, a weights file."
        )
    if run.is_file():
        return f"{run} is a file, expected a run directory, which {program('train')} writes."
    inner = finished_runs(run)
    if inner:
        return f"{run} contains {len(inner)} runs, and is not a run itself. Give one of them, such as {inner[-1]}."
    return f"{run} contains no {RECORD}: it is not a finished run of {program('train')}."


def _unfinished(folder: Path) -> str:
    run = finished_name(folder)
    if has_checkpoint(folder):
        again = command("train", "--resume", "--out", run)
        return f"{run} is not finished (last checkpoint {_time(_written(folder))}). Resume it with: {again}"
    return f"{run} is not finished and has no checkpoint: it is still training, or was killed before its first one."


def _written(folder: Path) -> float:
    """Time of the last checkpoint, or of the start if there is none, in seconds since 1970."""
    times = [0.0]
    for name in (NEWEST, PREVIOUS, OPTIONS):
        with suppress(OSError):  # it does not exist, or is being renamed
            times.append((folder / name).stat().st_mtime)
    return max(times)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
