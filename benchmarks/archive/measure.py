"""`measure`: one way to score an archive, timed at two sizes, then killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stageproof.benchmarks.archive.loops import COLUMNS
from stageproof.benchmarks.serving.process_tree import ProcessTree

KILLED_AT = 0.6
"""Share of an undisturbed run after which the processes get SIGKILL."""
_SAMPLED_S = 0.25


@dataclass(frozen=True)
class Way:
    """A way to score an archive."""

    name: str
    words: Sequence[str]
    """Of the command; ``{list}`` and ``{out}`` are replaced."""


@dataclass(frozen=True)
class Measured:
    """What one way took."""

    name: str
    images_per_second: float
    """Between the small and the large list, so that the start is not in it."""
    start_s: float
    """What remains of the small run at that rate: start and end."""
    cpu_ms: float
    """CPU time per image, of both runs' difference, summed over all processes."""
    memory: int
    """Largest sum of proportional set sizes, bytes, sampled every quarter of a second."""
    kept: int
    """Different inputs with a whole row after the kill."""
    again_s: float
    """Wall time of the same command after the kill."""
    rows: int
    """Rows after it."""
    inputs: int
    """Different inputs in them."""


def ways(bundle: Path, counts: Sequence[int]) -> list[Way]:
    """Those of `benchmarks.archive.loops` and of `stageproof score`, for each number of workers."""
    module, found = [sys.executable, "-m"], []
    for count in counts:
        for loop in ("stream", "ray-data", "dask"):
            words = [*module, "stageproof.benchmarks.archive.loops", loop, str(bundle), "{list}", "{out}", str(count)]
            found.append(Way(f"{loop}, {count}", words))
        for engine in ("local", "ray"):
            words = [*module, "stageproof.serving.archive", str(bundle), "--in", "{list}", "--out", "{out}"]
            options = ["--workers", str(count), "--threads", "1", "--engine", engine, "--shard-images", "500"]
            found.append(Way(f"score, {engine}, {count}", [*words, *options]))
    return found


def measure(way: Way, small: Sequence[Path], large: Sequence[Path], folder: Path) -> Measured:
    """The figures of `way`. folder: work folder, emptied. Raises RuntimeError if a run fails."""
    listings = [_listing(way, files, folder / f"{len(files)}") for files in (small, large)]
    runs = [_run(way, listing, folder / "out", folder / "log") for listing in listings]
    wall, cpu = (runs[1][key] - runs[0][key] for key in ("wall", "cpu"))
    more = len(large) - len(small)
    _run(way, listings[1], folder / "out", folder / "log", stop=KILLED_AT * runs[1]["wall"])
    kept = kept_rows(folder / "out")
    again = _run(way, listings[1], folder / "out", folder / "log", fresh=False)
    rows = kept_rows(folder / "out")
    return Measured(
        way.name,
        more / wall,
        max(0.0, runs[0]["wall"] - len(small) * wall / more),
        1000 * cpu / more,
        max(run["memory"] for run in runs),
        len(kept),
        again["wall"],
        rows.total(),
        len(rows),
    )


def as_row(found: Measured, inputs: int) -> str:
    """Of a Markdown table."""
    doubled = f", {found.rows - found.inputs} doubled" if found.rows > found.inputs else ""
    cells = [
        found.name,
        f"{found.images_per_second:.0f}",
        f"{found.cpu_ms:.2f}",
        f"{found.start_s:.1f}",
        f"{found.memory / 2**20:.0f}",
        f"{found.kept / inputs:.0%}",
        f"{found.again_s:.0f}",
        f"{found.inputs / inputs:.0%}{doubled}",
    ]
    return f"| {' | '.join(cells)} |"


HEADER = (
    "| way, workers | images/s | CPU ms an image | start s | memory MiB | kept after kill | again s | rows then |\n"
    "|---|---|---|---|---|---|---|---|"
)


def as_json(found: Measured) -> dict[str, Any]:
    """The fields of `found`."""
    return asdict(found)


def _listing(way: Way, files: Sequence[Path], stem: Path) -> Path:
    """The list in the form that the command takes: a CSV file with a header for `stageproof score`."""
    table = "stageproof.serving.archive" in way.words
    path = stem.with_suffix(".csv" if table else ".txt")
    path.write_text("\n".join([*(["path"] if table else []), *map(str, files), ""]))
    return path


def _run(way: Way, listing: Path, out: Path, log: Path, *, stop: float | None = None, fresh: bool = True) -> Any:
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    words = [word.format(list=listing, out=out) for word in way.words]
    begun, memory, cpu = time.monotonic(), 0, 0.0
    with ProcessTree(words, os.environ, Path.cwd(), log) as tree:
        while (status := tree.exit_status) is None:
            if stop is not None and time.monotonic() - begun > stop:
                for pid in tree.pids():
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                break
            memory, cpu = max(memory, tree.pss()), max(cpu, tree.cpu_seconds())
            time.sleep(_SAMPLED_S)
        wall = time.monotonic() - begun
        if stop is not None and status is not None:
            raise RuntimeError(f"{way.name} ended before it was killed")
        if status:
            raise RuntimeError(f"{way.name} ended with {status}: {tree.last_lines()}")
    return {"wall": wall, "memory": memory, "cpu": cpu}


def kept_rows(out: Path) -> Counter[str]:
    """How often each input has a row in files that a reader of the folder would take. A line needs all its columns."""
    if (out / "parts").is_dir():
        import pyarrow.parquet as pq

        parts = [pq.read_table(part, columns=["input_id"]) for part in sorted((out / "parts").glob("*.parquet"))]
        return Counter(name for part in parts for name in part["input_id"].to_pylist())
    lines = [line for file in out.rglob("*.csv") for line in file.read_text().splitlines()]
    rows = [line.split(",") for line in lines if line.count(",") == len(COLUMNS) - 1]
    return Counter(row[0].strip('"') for row in rows if row[0].strip('"') != COLUMNS[0])
