"""Which run a command works on: the one that is named, or the one that finished last, in runs/ or written elsewhere.

Every command that takes a run finds it by `chosen`, which says which one it is. Light: needs no torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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

ELSEWHERE = ".elsewhere"
"""File in runs/ with a line for each run that was written to another folder by a command started here."""
_REMEMBERED = 100


def remember(run: Path, runs: Path = RUNS) -> None:
    """Let `chosen` find a run that is written outside of `runs`.

    Where there is no `runs` nothing is written: then no other run can be mistaken for this one.
    """
    run = absolute(run)
    if not runs.is_dir() or run.parent == runs.resolve():
        return
    lines = [str(path) for path in _elsewhere(runs) if path != run]
    with suppress(OSError):  # a folder that may not be written to; the run itself is not in question
        (runs / ELSEWHERE).write_text("\n".join([*lines[-_REMEMBERED:], str(run)]) + "\n", encoding="utf-8")


def _elsewhere(runs: Path) -> list[Path]:
    """Runs, finished or not, that were written outside of `runs` and are still there."""
    try:
        paths = [Path(line) for line in (runs / ELSEWHERE).read_text(encoding="utf-8").splitlines() if line]
    except (OSError, UnicodeDecodeError):
        return []
    return [path for path in paths if path.exists() or partial_folder(path).exists()]


def finished_runs(runs: Path = RUNS) -> list[Path]:
    """The finished runs in `runs` and those remembered there, the one finished last at the end."""
    found = [path.parent for path in runs.glob(f"*/{RECORD}")]
    found += [path for path in _elsewhere(runs) if (path / RECORD).is_file()]
    return sorted(found, key=finished_at)


def unfinished_runs(runs: Path = RUNS) -> list[Path]:
    """The folders of runs that are not finished, the one written to last at the end."""
    found = [*runs.glob(".*.partial"), *(partial_folder(path) for path in _elsewhere(runs))]
    return sorted((folder for folder in found if folder.is_dir()), key=_written)


def interrupted_run(out: Path | None, runs: Path = RUNS) -> Path | None:
    """Folder of the interrupted run at `out`, or of the one interrupted last; None when there is nothing at `out` yet.

    Raises CheckpointError when no run is named and none was interrupted, or when the one named is finished.
    """
    if out is not None:
        if out.exists():
            raise CheckpointError(f"{out} is finished: there is nothing to resume. Give another --out.")
        return partial_folder(out) if has_checkpoint(partial_folder(out)) else None
    folders = [folder for folder in unfinished_runs(runs) if has_checkpoint(folder)]
    if not folders:
        raise CheckpointError(f"{runs}/ holds no interrupted run with a checkpoint. Name the run: --resume --out RUN.")
    return folders[-1]


def newest_run(runs: Path = RUNS) -> Path:
    """The run finished last. Raises CheckpointError when there is none."""
    found = finished_runs(runs)
    if not found:
        waiting = unfinished_runs(runs)
        more = f" {_unfinished(waiting[-1])}" if waiting else f" Name a run, or train one with: {command('train')}"
        raise CheckpointError(f"{runs.absolute()} holds no finished run.{more}")
    return found[-1]


def run_of(digest: str, bundle: Path, runs: Path = RUNS) -> Path:
    """The run whose weights have this SHA-256: among `finished_runs`, beside the bundle, or in a runs/ beside it.

    Raises CheckpointError when it is in none of these places.
    """
    for run in (run for place in (runs, bundle.parent, bundle.parent / RUNS) for run in reversed(finished_runs(place))):
        with suppress(CheckpointError):  # another run's record is damaged
            if read_record(run).get("weights_sha256") == digest:
                return run
    raise CheckpointError(
        f"The run that {bundle} was made from is neither in {runs.absolute()} nor beside the bundle. Name the run or "
        "checkpoint."
    )


def run_of_file(path: Path, runs: Path = RUNS) -> Path | None:
    """The run whose weights this file is, by SHA-256: the one beside it, or one of `finished_runs`; None without."""
    places = [path.parent] if (path.parent / RECORD).is_file() else []
    places += reversed(finished_runs(runs))
    digest = sha256_file(path) if places else ""
    for run in places:
        with suppress(CheckpointError):  # another run's record is damaged
            if read_record(run).get("weights_sha256") == digest:
                return run
    return None


def chosen(run: Path | None, say: Callable[[str], None], runs: Path = RUNS) -> Path:
    """`run`, or the one finished last; `say` takes a line that names it, and a warning where a newer one is unfinished.

    Raises CheckpointError when it is not there or not finished.
    """
    if run is None:
        run = newest_run(runs)
        waiting = [folder for folder in unfinished_runs(runs) if _written(folder) > finished_at(run)[0]]
        if waiting:
            say(f"WARNING: newer than the run used here: {_unfinished(waiting[-1])}")
    elif not (run / RECORD).is_file():
        raise CheckpointError(_why_not(run))
    say(described(run, read_record(run)))
    return run


def evaluation_folder(run: Path, data: Path | None) -> Path:
    """Where the evaluation of a run goes that names no --out."""
    return run / ("evaluation" if data is None else f"evaluation-{data.stem}")


def described(run: Path, record: Mapping[str, Any]) -> str:
    """One line: which run it is, when it finished, and on what it was trained."""
    data = data_path(run, record)
    what = "phantoms" if data is None else str(data)
    return f"run {run}: finished {_time(finished_at(run)[0])}, trained on {what}"


def _why_not(run: Path) -> str:
    """Why a path that was named is no finished run, and what to do."""
    partial = run if run.name.startswith(".") and run.name.endswith(".partial") else partial_folder(run)
    if not run.exists() or run == partial:
        return (
            _unfinished(partial)
            if partial.is_dir()
            else f"{run} does not exist. Name a run directory, or, for {program('export')}, a file of weights."
        )
    if run.is_file():
        return f"{run} is a file, expected a run directory: the folder that {program('train')} wrote."
    inner = finished_runs(run)
    if inner:
        return f"{run} holds {len(inner)} runs and is none itself. Name one of them, such as {inner[-1]}."
    return f"{run} holds no {RECORD}: it is not a finished run of {program('train')}."


def _unfinished(folder: Path) -> str:
    run = finished_name(folder)
    if has_checkpoint(folder):
        again = command("train", "--resume", "--out", run)
        return f"{run} is not finished (last checkpoint {_time(_written(folder))}). Finish it with: {again}"
    return f"{run} is not finished and has no checkpoint: it is still training, or was killed before the first one."


def _written(folder: Path) -> float:
    """Seconds since 1970: of the last checkpoint; of the beginning, where there is none yet."""
    times = [0.0]
    for name in (NEWEST, PREVIOUS, OPTIONS):
        with suppress(OSError):  # not there, or just between its two names
            times.append((folder / name).stat().st_mtime)
    return max(times)


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
