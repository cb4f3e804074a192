"""Reads CSV and TSV files as rows of text, and finds columns by their usual names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.system.regular_files import read_text

LARGEST_TABLE = 1 << 30
"""Maximum size of a table in bytes: millions of rows."""
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "file_name", "filename", "filepath", "file_path", "image", "image_path"),
    "label": (
        *("label", "labels", "class", "stage", "diagnosis", "dx"),
        *("cdr", "cdr_global", "global_cdr", "cdglobal", "cdrglob"),
    ),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "subjectid", "participant_id", "group"),
    "session": ("session", "session_id", "visit", "visit_id", "scan_date"),
    "age": ("age", "age_years", "age_at_scan", "age_at_visit", "patient_age", "patientage", "participant_age"),
    "sex": ("sex", "gender", "patient_sex", "patientsex", "participant_sex", "m/f"),
}
"""Kind of column → accepted names, ignoring case, and with spaces or hyphens in place of underscores."""


def column(kind: str, header: list[str]) -> str | None:
    """The first column of `header` of this `kind` (a key of `COLUMNS`), or None."""
    return next(iter(columns(kind, header)), None)


def columns(kind: str, header: list[str]) -> list[str]:
    """All columns of `header` of this `kind`, in the order of `COLUMNS`."""
    spelt = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(header)}
    return [spelt[name] for name in COLUMNS[kind] if name in spelt]


def read_table(path: Path, what: str) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a CSV file, or of a TSV file if it ends with .tsv.

    what: what the file is, for the message. Raises DatasetError if it cannot be read.
    """
    try:
        text = read_text(path, LARGEST_TABLE, "utf-8-sig")  # spreadsheets write a byte-order mark
        first = text.partition("\n")[0]
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        found = [{name: (value or "").strip() for name, value in row.items() if name is not None} for row in rows]
        return list(rows.fieldnames or ()), found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as {what}: {error}. Save it as CSV in UTF-8.") from error
