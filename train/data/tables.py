"""CSV and TSV files of slices or people: read as rows of text, their columns found by any of their usual names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.system.regular_files import read_text

LARGEST_TABLE = 1 << 30
"""Bytes of a table of slices: millions of rows."""
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("path", "file", "file_name", "filename", "filepath", "file_path", "image", "image_path"),
    "label": ("label", "class", "stage", "diagnosis", "dx"),
    "patient": ("patient", "patient_id", "patientid", "subject", "subject_id", "subjectid", "participant_id", "group"),
    "session": ("session", "session_id", "visit", "visit_id", "scan_date"),
}
"""What a column may be called, in any case and with spaces or hyphens for underscores."""


def column(kind: str, header: list[str]) -> str | None:
    """The column of `header` that is a `kind` of `COLUMNS`, or None."""
    spelt = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(header)}
    return next((spelt[name] for name in COLUMNS[kind] if name in spelt), None)


def read_table(path: Path, what: str) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a CSV file, or with tabs where it ends in .tsv. Raises DatasetError, naming it as `what`."""
    try:
        text = read_text(path, LARGEST_TABLE, "utf-8-sig")  # spreadsheets write a byte-order mark
        first = text.partition("\n")[0]
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        found = [{name: (value or "").strip() for name, value in row.items() if name is not None} for row in rows]
        return list(rows.fieldnames or ()), found
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read as {what}: {error}. Save it as CSV in UTF-8.") from error
