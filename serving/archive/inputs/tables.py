"""Lists of inputs: a CSV, TSV or parquet file with a column of paths and, if known, one of patient ids."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from stageproof.runtime.errors import InputError
from stageproof.serving.archive.inputs.entry import is_url

SUFFIXES = (".csv", ".tsv", ".parquet")
PATHS = ("path", "file", "file_name", "filename", "image", "image_path")
PATIENTS = ("patient", "patient_id", "subject", "subject_id")


def rows(table: str) -> Iterator[tuple[str, str | None]]:
    """(path, patient id or None) of each row. Relative paths are relative to the folder of the table.

    Raises InputError for a table without exactly one column of paths, or with an empty path.
    """
    found = _parquet(table) if table.lower().endswith(".parquet") else _csv(table)
    folder = Path(table).parent
    for number, (path, patient) in enumerate(found, 1):
        if not path.strip():
            raise InputError(f"{table}, row {number} has no path. Remove the row, or complete it.")
        yield path if is_url(path) else _file(folder, path), patient or None


def _file(folder: Path, path: str) -> str:
    """The path of a row; if there is such a file only then, without spaces around it and with ``/`` for the backslashes
    of Windows."""
    other = path.strip().replace("\\", "/")
    if other != path and not (folder / path).exists() and (folder / other).exists():
        path = other
    return str(folder / path)


def _csv(table: str) -> Iterator[tuple[str, str]]:
    try:
        with Path(table).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = "\t" if table.lower().endswith(".tsv") else max(",;\t", key=first.count)
            lines = csv.reader(file, delimiter=delimiter, strict=True)
            names = next(lines, [])
            at, patient_at = _columns(table, names)
            for number, row in enumerate(lines, 1):
                if not row:
                    continue
                if len(row) != len(names):
                    raise InputError(f"{table}, row {number} has {len(row)} cells, expected {len(names)}. Correct it.")
                yield row[at], "" if patient_at is None else row[patient_at].strip()
    except (OSError, csv.Error) as error:
        raise InputError(f"{table} cannot be read as CSV: {error}. Export it again.") from error


def _parquet(table: str) -> Iterator[tuple[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(table) as file:
            names = file.schema_arrow.names
            at, patient_at = _columns(table, names)
            kind = file.schema_arrow.field(at).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise InputError(
                    f"{table} has {kind} in its column {names[at]!r}, expected text: paths of image files. Images "
                    "inside a parquet file are not read here; write them to files, or to a tar file."
                )
            wanted = [names[at]] + ([] if patient_at is None else [names[patient_at]])
            for batch in file.iter_batches(columns=wanted):
                paths = batch.column(wanted[0]).to_pylist()
                patients = [""] * len(paths) if patient_at is None else batch.column(wanted[1]).to_pylist()
                yield from ((path or "", _id(one)) for path, one in zip(paths, patients, strict=True))
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{table} cannot be read as parquet: {error}. Export it again.") from error


def _id(value: object) -> str:
    """A patient id as text; ``7.0``, which pandas makes of 7 beside an empty cell, is 7."""
    if value is None or value != value:  # NaN
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def _columns(table: str, names: Sequence[str]) -> tuple[int, int | None]:
    lower = [name.strip().lower() for name in names]
    paths = [at for at, name in enumerate(lower) if name in PATHS]
    patients = [at for at, name in enumerate(lower) if name in PATIENTS]
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    if len(paths) != 1 or len(patients) > 1:
        raise InputError(
            f"{table} has the columns {shown}; expected exactly one of {', '.join(PATHS)} and at most one of "
            f"{', '.join(PATIENTS)}. Rename or remove columns."
        )
    return paths[0], patients[0] if patients else None
