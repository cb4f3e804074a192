"""`python -m benchmarks.archive BUNDLE FOLDER`: `stageproof score` beside plain loops. One run each, no intervals."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stageproof.benchmarks.archive.measure import HEADER, as_json, as_row, measure, ways
from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.errors import InputError

_NEEDS = {"ray-data": ("ray", "pandas"), "dask": ("dask",), "score, ray": ("ray",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0; 1 if a way failed; 2 invalid input."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.archive",
        description="Scores a list of images with stageproof score and with loops around Predictor, Ray Data and Dask; "
        "kills each once and starts it again. Prints Markdown. What is not installed is named.",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("folder", type=Path, help="folder of .jpg or .png images")
    parser.add_argument("--images", type=int, default=10_000, help="of the large list (default: 10000)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--only", default="", help="ways whose name starts with this")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    given = parser.parse_args(argv)
    files = sorted(path.absolute() for path in given.folder.rglob("*") if path.suffix in (".jpg", ".png"))
    if len(files) < given.images or given.images < 1000:
        message = f"{given.folder} has {len(files)} .jpg and .png images, --images is {given.images}"
        return report_error(InputError(f"{message}; expected 1000 or more, and at least --images in the folder."))
    large = files[: given.images]
    for file in large:
        file.read_bytes()  # so that the first way does not read from the disk what the others find in memory
    print(HEADER, flush=True)
    found, failed = [], False
    for way in ways(given.bundle.absolute(), given.workers):
        if not way.name.startswith(given.only):
            continue
        needs = itertools.chain.from_iterable(names for name, names in _NEEDS.items() if way.name.startswith(name))
        if missing := [name for name in needs if importlib.util.find_spec(name) is None]:
            print(f"<!-- {way.name}: not measured, {', '.join(missing)} is not installed -->", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                figures = measure(way, large[: len(large) // 5], large, Path(folder))
            except RuntimeError as error:
                failed = True
                print(f"<!-- {error} -->", flush=True)
                continue
        found.append(as_json(figures))
        print(as_row(figures, len(large)), flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1))
    return int(failed)


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="benchmarks"))
