"""`groups.csv`: who is who, one row a slice. The audit writes it, `--groups` takes it; users with real ids make it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from runtime.errors import DatasetError
from train.data.samples import Samples

COLUMNS = ("file", "group")


def write_groups(path: Path, names: Sequence[str], groups: np.ndarray) -> None:
    """Write the file, UTF-8, in the order of the slices.

    names: (N,) as in `Samples.names`. groups: (N,) int.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(zip(names, groups.tolist(), strict=True))


def with_groups(samples: Samples, path: Path) -> Samples:
    """The samples with `groups` as the file at `path` tells them: any text is a group's name.

    Raises DatasetError when it cannot be read, lacks a column, or does not name every slice of the samples once and
    nothing else, or knows a single group.
    """
    told = _read(path)
    known = set(samples.names)
    strangers = [name for name in told if name not in known]
    missing = [name for name in samples.names if name not in told]
    wrong = f"unknown in {samples.source}" if strangers else f"of {samples.source} without a row"
    if strangers or missing:
        names = strangers or missing
        raise DatasetError(
            f"{path}: {len(names)} files {wrong}, such as {names[0]!r}. Expected one row for each file, named as "
            f"{samples.names[0]!r} is; python -m train.audit writes such a groups.csv."
        )
    if len(set(told.values())) < 2:
        raise DatasetError(f"{path} puts every file into one group. Expected one group for each patient.")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(told[name] for name in samples.names))}
    return replace(samples, groups=np.array([numbers[told[name]] for name in samples.names], np.int64))


def _read(path: Path) -> dict[str, str]:
    """Group by file."""
    told: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a byte-order mark
            rows = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                found = ", ".join(rows.fieldnames or ()) or "nothing"
                raise DatasetError(f"{path} has no column {' and no '.join(missing)}; its first line holds {found}.")
            for row in rows:
                name, group = row["file"], (row["group"] or "").strip()
                if not name or not group:
                    raise DatasetError(f"{path}, line {rows.line_num}: a file and its group are expected, got {row}.")
                if told.setdefault(name, group) != group:
                    raise DatasetError(f"{path}, line {rows.line_num}: {name!r} is in {told[name]!r} and in {group!r}.")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as groups: {error}. Give a CSV file with file and group.") from error
    return told
