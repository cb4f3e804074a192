"""`table_rows`: slices of Arrow tables with an image column, as the datasets library writes them.

Labels that are numbers are replaced by the class names of the file they are in, so that shards whose ClassLabel has
another order are not mixed.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import recognise
from stageproof.runtime.labels.scales import plain
from stageproof.train.data.class_column import is_rating_column, label_text, name_classes
from stageproof.train.data.ids import check_spelling
from stageproof.train.data.sources.rows import Rows
from stageproof.train.data.tables import assert_distinct, column, columns

_log = logging.getLogger(__name__)


def table_rows(tables: Sequence[tuple[Any, Path]], where: Path) -> Rows:
    """The rows of tables of one split, in this order."""
    images: list[Any] = []
    values: list[Any] = []
    declared: list[str] = []
    subjects: list[Any] | None = []
    sessions: list[str | None] = []
    label = patient = session = ""
    for table, file in tables:
        image, label = _columns(table, file)
        rows = table.column(image).to_pylist()
        if any(row is not None and not (isinstance(row, dict) and "bytes" in row) for row in rows):
            raise DatasetError(f"{file}: {image!r} is {table.schema.field(image).type}, expected struct<bytes, path>.")
        if any((row or {}).get("path") for row in rows) and not any((row or {}).get("bytes") for row in rows):
            raise DatasetError(f"{file}: {image!r} has paths and no images. Write the file with embedded images.")
        images += rows
        classes = _class_names(table.schema.metadata or {}, label)
        values += _values(table, label, classes, file)
        declared += classes or []
        patient, session = column("patient", table.column_names) or "", column("session", table.column_names) or ""
        subjects = _column(table, patient, subjects)
        sessions += (
            [None if one is None else str(one) for one in table.column(session).to_pylist()]
            if session
            else ([None] * len(rows))
        )
    paths = [str((row or {}).get("path") or "") for row in images]
    if others := [one for one in columns("label", table.column_names) if one != label]:
        _log.info("%s: labels are read from the column %r, not from %s", where, label, ", ".join(map(repr, others)))
    subjects, note = _usable(subjects, patient, where)
    return Rows(
        images=[(row or {}).get("bytes") or b"" for row in images],
        values=values,
        # Names in published files are not unique, so the row number is added.
        names=[f"{number:06d}/{Path(path).name}" for number, path in enumerate(paths)],
        where=f"{where}, column {label!r}",
        paths=paths,
        declared=declared,
        ratings=is_rating_column(label),
        subjects=subjects,
        notes=(note,) if note else (),
        sessions=sessions,
        ids_from=f"column {patient!r} of {where.name}" + (f", sessions from {session!r}" if any(sessions) else ""),
    )


def _columns(table: Any, file: Path) -> tuple[str, str]:
    """The names of the columns of images and labels."""
    import pyarrow as pa

    structs = [
        field.name
        for field in table.schema
        if pa.types.is_struct(field.type)
        and "bytes" in {field.type.field(at).name for at in range(field.type.num_fields)}
    ]
    image = "image" if "image" in table.column_names else structs[0] if len(structs) == 1 else None
    label = column("label", table.column_names)
    assert_distinct(table.column_names, (label, column("patient", table.column_names)), file)
    if image is None or label is None:
        raise DatasetError(
            f"{file} has the columns {', '.join(table.column_names)}; expected 'image' (struct of bytes and path) and "
            "'label', as the datasets library writes them."
        )
    return image, label


def _column(table: Any, name: str, before: list[Any] | None) -> list[Any] | None:
    return None if before is None or not name else before + table.column(name).to_pylist()


def _usable(subjects: list[Any] | None, patient: str, where: Path) -> tuple[list[str] | None, str]:
    """The ids in the column `patient` as text, None if they are none; and a note on why they are not used."""
    if not patient:
        return None, ""
    column = f"column {patient!r} of {where.name}"
    if subjects is None:
        return None, f"{column}: not every file has it, not used"
    if any(isinstance(one, (list, dict)) for one in subjects):
        return None, f"{column}: it has no plain values, not used"
    texts = [label_text(one) for one in subjects]
    if empty := texts.count(""):
        return None, "" if empty == len(texts) else f"{column}: empty in {empty} of {len(texts)} rows, not used"
    if name_classes(texts):  # a column named group, as in OASIS
        return None, f"{column}: it has names of classes, not used"
    if len(set(texts)) < 2:
        return None, f"{column}: the same for all slices, not used"
    check_spelling(texts, f"{where}, column {patient!r}")
    return texts, ""


def _values(table: Any, label: str, classes: list[str] | None, file: Path) -> list[Any]:
    """The labels; numbers as the class names of the file, if it has them."""
    values = table.column(label).to_pylist()
    if any(isinstance(value, (list, dict, bytes)) for value in values):
        raise DatasetError(f"{file}: {label!r} is {table.schema.field(label).type}, expected one number or name a row.")
    if classes is None:
        return values
    found = {value: _named(value, classes) for value in set(values)}
    if outside := sorted(repr(value) for value, name in found.items() if name is None):
        raise DatasetError(
            f"{file}: {', '.join(outside[:5])} in the column {label!r} is not a class ({len(outside)} such values). "
            f"Expected integers from 0 to {len(classes) - 1}, for {', '.join(classes)} in this order, or these names."
        )
    return [found[value] for value in values]


def _named(value: Any, classes: Sequence[str]) -> str | None:
    """The name in `classes` of a label: a name in any spelling, or a position as an integer, also as 2.0 or "2"."""
    text = label_text(value)
    if isinstance(value, str):
        scale = recognise(classes)
        for same in (str.strip, plain, lambda name: (scale and scale.find(name)) or None):
            if (key := same(text)) and (found := [name for name in classes if same(name) == key]):
                return found[0]
    if isinstance(value, bool) or not text.isdecimal() or int(text) >= len(classes):
        return None
    return classes[int(text)]


def _class_names(metadata: dict[bytes, bytes], label: str) -> list[str] | None:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[label]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
