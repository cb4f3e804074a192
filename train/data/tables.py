"""Reads CSV and TSV files as rows of text, and finds columns by their usual names."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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
    spelt = {_plain(name): name for name in reversed(header)}
    return [spelt[name] for name in COLUMNS[kind] if name in spelt]


def assert_distinct(header: list[str], used: Iterable[str | None], path: Path) -> None:
    """Raise DatasetError if another column of `header` has the name of one in `used` (None: no column), also in another
    spelling, such as Label and label: it is unknown which one is meant."""
    for name in used:
        same = [one for one in header if name is not None and _plain(one) == _plain(name)]
        if len(same) > 1:
            raise DatasetError(
                f"{path} has {len(same)} columns of one name, {' and '.join(map(repr, same))}. Rename or remove all "
                "but one."
            )


def read_table(path: Path, what: str) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows of a CSV file, or of a TSV file if it ends with .tsv.

    Cells that are missing at the end of a row are empty. what: what the file is, for the message.

    Raises DatasetError if it cannot be read, for a row with more cells than the header, as a decimal comma makes, and
    for a quotation mark that is not closed.
    """
    with _reading(path, what):
        rows = _rows(path)
        found = []
        for row in rows:
            if any(row.pop(None, [])):
                raise DatasetError(
                    f"{path}, line {rows.line_num}: the row has more cells than the header, which has "
                    f"{len(rows.fieldnames or ())}. Quote cells that contain {rows.reader.dialect.delimiter!r}, such "
                    "as numbers with a decimal comma."
                )
            found.append({name: (value or "").strip() for name, value in row.items()})
        return list(rows.fieldnames or ()), found


def read_header(path: Path, what: str) -> list[str]:
    """The header of a table. Raises DatasetError as `read_table`, but for the header alone."""
    with _reading(path, what):
        return list(_rows(path).fieldnames or ())


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _rows(path: Path) -> csv.DictReader[str]:
    text = read_text(path, LARGEST_TABLE, "utf-8-sig")  # spreadsheets write a byte-order mark
    first = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


@contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "a quotation mark is not closed" if str(error) == "unexpected end of data" else error
        raise DatasetError(f"{path} cannot be read as {what}: {reason}. Save it as CSV in UTF-8.") from error
