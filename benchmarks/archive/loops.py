"""Loops that score a list of images, as their users would write them. `benchmarks.archive.measure` runs them.

Each keeps what its library keeps if it is killed, and starts over if it is started again.
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from stageproof.runtime import Predictor
from stageproof.runtime.cli.exit_status import exit_status

COLUMNS = ("path", "status", "label", "probability")


def stream(bundle: str, paths: list[str], out: Path, workers: int) -> None:
    """`Predictor.stream` into one CSV file."""
    predictor = Predictor(bundle, threads=workers, optimize_for="throughput")
    with (out / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows(_rows(predictor, paths))


def ray_data(bundle: str, paths: list[str], out: Path, workers: int) -> None:
    """Ray Data's documented form of batch inference: `map_batches` with a class on a pool of actors, then CSV files."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    class Scored:
        def __init__(self) -> None:
            self.predictor = Predictor(bundle, threads=1)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            rows = list(_rows(self.predictor, [str(path) for path in batch["path"]]))
            return dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    data = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=max(1, len(paths) // 500))
    pool = ray.data.ActorPoolStrategy(size=workers)
    data.map_batches(Scored, batch_size=100, compute=pool, num_cpus=0.9).write_csv(str(out / "rows"))
    ray.shutdown()


def dask(bundle: str, paths: list[str], out: Path, workers: int) -> None:
    """A Dask bag of paths, 500 per partition, on the scheduler with processes; one text file for each partition."""
    import dask.bag

    bag = dask.bag.from_sequence(paths, partition_size=500)
    lines = bag.map_partitions(functools.partial(_lines, bundle))
    lines.to_textfiles(
        str(out / "*.csv"), compute=True, compute_kwargs={"scheduler": "processes", "num_workers": workers}
    )


LOOPS: dict[str, Callable[[str, list[str], Path, int], None]] = {"stream": stream, "ray-data": ray_data, "dask": dask}


@functools.lru_cache
def _predictor(bundle: str) -> Predictor:
    return Predictor(bundle, threads=1)


def _lines(bundle: str, paths: Iterable[str]) -> list[str]:
    return [",".join(map(str, row)) for row in _rows(_predictor(bundle), list(paths))]


def _rows(predictor: Predictor, paths: list[str]) -> Iterator[tuple[str, str, str, float]]:
    for path, found in zip(paths, predictor.stream(paths), strict=True):
        yield path, found.status, found.label or "", found.probability or 0.0


def main() -> int:
    """Exit status: 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.archive.loops", description="Score a list of images.")
    parser.add_argument("loop", choices=LOOPS)
    parser.add_argument("bundle")
    parser.add_argument("list", type=Path, help="file with one path per line")
    parser.add_argument("out", type=Path)
    parser.add_argument("workers", type=int)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    LOOPS[given.loop](given.bundle, given.list.read_text().splitlines(), given.out, given.workers)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="benchmarks"))
