"""Copies of runs, and changes to them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

from stageproof.train.runs.record import read_record


def copied(run: Path, folder: Path) -> Path:
    """The run under another name; files are linked, and replaced rather than written into."""
    return Path(shutil.copytree(run, folder / "run", copy_function=os.link))


def rewritten(run: Path, change) -> None:
    """Change the record of a copied run."""
    record = json.loads((run / "run.json").read_text())
    change(record)
    (run / "run.json").unlink()
    (run / "run.json").write_text(json.dumps(record))


def dealt(run: Path, side_of) -> None:
    """Deal the slices of a copied run anew: `side_of(position)`."""
    with (run / "split.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (run / "split.csv").unlink()
    with (run / "split.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "side": side_of(position)} for position, row in enumerate(rows))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".md", ".csv")}


def slices_of(run: Path) -> Path:
    """The folder that a run was trained on."""
    return Path(read_record(run)["options"]["data"])
