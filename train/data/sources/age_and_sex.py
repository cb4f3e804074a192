"""`traits_of`: age and sex of the patient of each slice, from columns of the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.train.data.identity.participants import NAME, participant_finder, participants_file
from stageproof.train.data.sources.hugging_face import rows_beside_images
from stageproof.train.data.sources.source import opened, tables_of
from stageproof.train.data.tables import column, read_table

NOT_RECORDED = "not recorded"
_SEX = {
    **dict.fromkeys(("f", "female", "woman"), "female"),
    **dict.fromkeys(("m", "male", "man"), "male"),
    **dict.fromkeys(("o", "other", "diverse", "x"), "other"),
}
_OLDEST = 125.0


@dataclass(frozen=True)
class Traits:
    """Age and sex for N slices."""

    ages: np.ndarray
    """(N,) float64, years; NaN if not recorded."""
    sexes: np.ndarray
    """(N,) str: female, male, other, or `NOT_RECORDED`."""
    origin: str
    """Description of the source."""


def traits_of(data: Path | None, names: Sequence[str]) -> Traits | None:
    """Age and sex for each slice; None if the data has no column for either.

    data: as for `train.data.sources.source.load_samples`; None for phantoms, which have neither. names: (N,) names of
    the slices in its result. A CSV, parquet files or a saved dataset are searched first, then `participants.tsv`.

    Raises DatasetError if a table cannot be read.
    """
    if data is None:
        return None
    with opened(data) as (place, _):
        tables: list[Path] = []
        with (
            suppress(DatasetError) if place.is_dir() else nullcontext()
        ):  # a table beside the images may be of any kind
            tables = tables_of(place)
        found = _of_csv(tables[0], names) if len(tables) == 1 else None
        if found is None and (place.is_dir() or place.suffix.lower() == ".parquet"):
            found = _of_rows(place, names)
        file = participants_file(place)
        return _of_participants(file, names) if found is None and file is not None else found


def age_in_years(value: Any) -> float:
    """The age in a cell, in years; NaN if it contains no age.

    Ages over 89 may be masked as ``89+`` or ``>89`` (BIDS 1.10, "Participants file"), which is read as 89. DICOM age
    strings (PS3.5, AS) end with Y, M, W or D.
    """
    match = re.fullmatch(r"[>≥]?=?\s*(\d+(?:\.\d+)?)\s*\+?\s*([ymwd]?)(?:ears?)?", str(value).strip().lower())
    if match is None:
        return float("nan")
    years = float(match[1]) / {"": 1, "y": 1, "m": 12, "w": 52.18, "d": 365.25}[match[2]]
    return years if years <= _OLDEST else float("nan")


def sex_of(value: Any) -> str:
    """``female``, ``male`` or ``other``; `NOT_RECORDED` for anything else, including numbers, whose coding varies."""
    return _SEX.get(str(value).strip().lower(), NOT_RECORDED)


def _traits(rows: Sequence[dict[str, Any] | None], header: list[str], origin: str) -> Traits | None:
    """Age and sex from the row of each slice (None: no row); None if the table has neither column."""
    age, sex = column("age", header), column("sex", header)
    if age is None and sex is None:
        return None
    ages = [age_in_years(row[age]) if row is not None and age is not None else float("nan") for row in rows]
    sexes = [sex_of(row[sex]) if row is not None and sex is not None else NOT_RECORDED for row in rows]
    used = " and ".join(repr(name) for name in (age, sex) if name is not None)
    return Traits(np.array(ages, np.float64), np.array(sexes, dtype=object), f"{used} of {origin}")


def _of_csv(path: Path, names: Sequence[str]) -> Traits | None:
    header, rows = read_table(path, "a list of slices")
    where = column("path", header)
    if where is None:
        return None
    by_name = {row[where].replace("\\", "/"): row for row in rows}
    if not any(name.replace("\\", "/") in by_name for name in names):
        return None  # a table of other files
    return _traits([by_name.get(name.replace("\\", "/")) for name in names], header, path.name)


def _of_rows(data: Path, names: Sequence[str]) -> Traits | None:
    # Names begin with the row number (train.data.sources.arrow_rows).
    numbers = [name.partition("/")[0] for name in names]
    rows = rows_beside_images(data) if all(number.isdecimal() for number in numbers) else None
    if not rows:
        return None
    chosen = [rows[int(number)] if int(number) < len(rows) else None for number in numbers]
    return _traits(chosen, list(rows[0]), data.name)


def _of_participants(file: Path, names: Sequence[str]) -> Traits | None:
    header, rows = read_table(file, "participants")
    known = {row.get("participant_id", "").removeprefix("sub-"): row for row in rows}
    known.pop("", None)
    if not known:
        return None
    find = participant_finder(known)
    found = [set(find(name)) for name in names]
    return _traits([known[next(iter(one))] if len(one) == 1 else None for one in found], header, NAME)
