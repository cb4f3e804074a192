"""`load_samples`: reads labelled slices from folders, a parquet file or a CSV file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import LABELS, canonical_label
from stageproof.train.data.identity.find_ids import with_ids
from stageproof.train.data.ids import Ids, numbered, session_numbers
from stageproof.train.data.samples import Samples
from stageproof.train.data.sources.csv_table import SUFFIXES, from_table
from stageproof.train.data.sources.folders import folder_samples
from stageproof.train.data.tables import column

_KINDS_NOT = "neither a folder of class folders, nor a .parquet file, nor a .csv file of path, label and patient"


def load_samples(path: Path, patient_pattern: str | None = None) -> Samples:
    """The labelled slices at `path`, with patient ids from names, tables or headers (`train.data.identity.find_ids`).

    path: a folder (`train.data.sources.folders`), a parquet file in the Hugging Face image schema, or a CSV of path,
    label and patient (`train.data.sources.csv_table`). patient_pattern: regular expression that extracts ids from paths
    instead.

    Raises DatasetError for invalid data, or if there is no slice of any class.
    """
    if path.is_dir():
        samples = folder_samples(path)
    elif path.is_file() and path.suffix.lower() == ".parquet":
        samples = _parquet(path)
    elif path.is_file() and path.suffix.lower() in SUFFIXES:
        samples = from_table(path)
    elif path.exists():
        raise DatasetError(f"{path} is {_KINDS_NOT}.")
    else:
        raise DatasetError(f"{path} does not exist. Give a folder of class folders, a .parquet file, or a .csv file.")
    check_classes(samples)
    return with_ids(samples, path, patient_pattern)


def check_classes(samples: Samples) -> None:
    """Raise DatasetError unless there is a slice of some class."""
    if not len(samples):
        raise DatasetError(
            f"{samples.source} has no image of any class. Expected images of {', '.join(LABELS)}, or of some of them."
        )


def absent_classes(labels: np.ndarray) -> tuple[str, ...]:
    """The classes that do not occur in `labels` ((N,) int64, indices in LABELS)."""
    return tuple(label for index, label in enumerate(LABELS) if not (labels == index).any())


def check_trainable(samples: Samples) -> None:
    """Raise DatasetError unless there are slices of at least two classes."""
    absent = absent_classes(samples.labels)
    if len(LABELS) - len(absent) < 2:
        only = next(label for label in LABELS if label not in absent)
        raise DatasetError(
            f"{samples.source} has images of {only} alone; training needs images of two classes or more. Add images of "
            f"{' or '.join(absent)}. (train.audit and train.evaluate accept such data.)"
        )


def _parquet(path: Path) -> Samples:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as parquet: {error}") from error
    columns = ", ".join(table.column_names)
    if not {"image", "label"} <= set(table.column_names):
        raise DatasetError(
            f"{path} has the columns {columns}; expected 'image' (struct of bytes and path) and 'label', as the "
            "datasets library writes them."
        )
    rows = table.column("image").to_pylist()
    if any(row is not None and not (isinstance(row, dict) and "bytes" in row) for row in rows):
        raise DatasetError(f"{path}: 'image' is {table.schema.field('image').type}, expected struct<bytes, path>.")
    return Samples(
        images=[(row or {}).get("bytes") or b"" for row in rows],
        labels=_parquet_labels(table, path),
        # Names in published files are not unique, so the row number is added.
        names=[f"{number:06d}/{Path((row or {}).get('path') or '').name}" for number, row in enumerate(rows)],
        groups=None,
        source=str(path),
        paths=[str((row or {}).get("path") or "") for row in rows],
        ids=_parquet_ids(table, path),
    )


def _parquet_ids(table: Any, path: Path) -> Ids | None:
    """The patient ids, if a column has one in every row; else None."""
    patient = column("patient", table.column_names)
    if patient is None:
        return None
    subjects = table.column(patient).to_pylist()
    if any(one in (None, "") or isinstance(one, (list, dict)) for one in subjects) or len(set(subjects)) < 2:
        return None
    session = column("session", table.column_names)
    named = [None if one is None else str(one) for one in table.column(session).to_pylist()] if session else None
    sessions = session_numbers(subjects, named) if named else None
    description = f"column {patient!r} of {path.name}" + (
        f", sessions from {session!r}" if sessions is not None else ""
    )
    return Ids("table", description, numbered(subjects), sessions)


def _position(value: Any, names: list[str]) -> int | None:
    """The index in `names` of a label in a parquet file: an integer, also as 2.0 or "2", or a class name; else None."""
    if isinstance(value, str):
        spelt = [canonical_label(name) for name in names]
        label = canonical_label(value)
        if label is not None and label in spelt:
            return spelt.index(label)
        value = int(value) if value.strip().isdecimal() else None
    if isinstance(value, (bool, type(None))) or not isinstance(value, (int, float)) or not float(value).is_integer():
        return None
    return int(value) if 0 <= value < len(names) else None


def _parquet_labels(table: Any, path: Path) -> np.ndarray:
    """(N,) int64 indices in LABELS, converted with the class names in the file."""
    values = table.column("label").to_pylist()
    if any(isinstance(value, (list, dict)) for value in values):
        raise DatasetError(f"{path}: 'label' is {table.schema.field('label').type}, expected one number or name a row.")
    names = _class_names(table.schema.metadata or {})
    if names is None:
        if not all(isinstance(value, str) for value in values):
            kinds = ", ".join(sorted({"nothing" if value is None else type(value).__name__ for value in values}))
            raise DatasetError(
                f"{path}: 'label' contains {kinds}, and the file does not name its classes (no ClassLabel in its "
                "'huggingface' metadata). Write it with the datasets library, or give 'label' as class names."
            )
        names = sorted(set(values))
        values = [names.index(value) for value in values]
    mapping = [canonical_label(name) for name in names]
    if None in mapping:
        unknown = ", ".join(repr(name) for name, label in zip(names, mapping, strict=True) if label is None)
        raise DatasetError(f"{path}: {unknown} is none of the classes {', '.join(LABELS)}.")
    found = {value: _position(value, names) for value in set(values)}
    if outside := sorted((repr(value) for value, position in found.items() if position is None), key=str):
        raise DatasetError(
            f"{path}: {', '.join(outside[:5])} in the column 'label' is not a class ({len(outside)} such values). "
            f"Expected integers from 0 to {len(names) - 1}, for {', '.join(names)} in this order, or these names."
        )
    return np.array([LABELS.index(str(mapping[found[value] or 0])) for value in values], np.int64)


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
