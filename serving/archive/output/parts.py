"""Parts: the rows of one shard as a parquet file, which states what it was made from and is verified by that.

The file's key-value metadata (key ``stageproof``, JSON) has `Plan.identity`, the digest of the inputs' content, and the
digest of the rows. Rows have no times, so that the same inputs give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stageproof.serving.archive.output.files import write_whole

KEY = b"stageproof"
FIXED = pa.schema(
    [
        pa.field("input", pa.int64(), nullable=False),
        pa.field("input_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string()),
        pa.field("study_id", pa.string()),
        pa.field("series_id", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("cdr", pa.float64()),
        pa.field("probability", pa.float64()),
        pa.field("code", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("warnings", pa.list_(pa.string()), nullable=False),
        pa.field("transforms", pa.list_(pa.string()), nullable=False),
    ]
)
"""Columns before those of the classes and guard scores; docs/archive.md describes each."""


def schema(classes: Sequence[str], guard_scores: Sequence[str]) -> pa.Schema:
    """Columns of a part: `FIXED`, ``probability_CLASS`` for each class, ``guard_SCORE`` for each score of the guard."""
    more = [f"probability_{name}" for name in classes] + [f"guard_{name}" for name in guard_scores]
    return pa.schema([*FIXED, *(pa.field(name, pa.float64()) for name in more)])


def write(path: Path, columns: Mapping[str, Sequence[Any]], columns_of: pa.Schema, identity: Mapping[str, str]) -> None:
    """Write a part whole or not at all. Raises ArchiveError."""
    arrays = [pa.array(columns[field.name], field.type) for field in columns_of]
    rows = pa.Table.from_arrays(arrays, schema=columns_of)
    about = {**identity, "rows": str(len(rows)), "inputs_sha256": inputs_digest(rows), "rows_sha256": rows_digest(rows)}
    buffer = pa.BufferOutputStream()
    made = rows.replace_schema_metadata({KEY: json.dumps(about, sort_keys=True)})
    pq.write_table(made, buffer, compression="zstd", row_group_size=max(1, len(rows)))
    write_whole(path, buffer.getvalue().to_pybytes())


def read(path: Path) -> tuple[pa.Table, dict[str, str]]:
    """The rows of a part, and what it states about itself. Raises ValueError with what is wrong with it."""
    try:
        table = pq.read_table(path, partitioning=None)
        stated = json.loads((table.schema.metadata or {}).get(KEY, b"null"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"it cannot be read ({type(error).__name__})") from error
    if not isinstance(stated, dict):
        raise ValueError("it was not written by score")
    return table.replace_schema_metadata(None), stated


def fault(path: Path, identity: Mapping[str, str], count: int, first: int, columns_of: pa.Schema) -> str | None:
    """What is wrong with the part at `path`, or None if it is complete, unchanged, and of this plan.

    count: inputs of the shard. first: number of its first input.
    """
    try:
        rows, stated = read(path)
    except ValueError as error:
        return str(error)
    differs = [name for name, value in identity.items() if stated.get(name) != value]
    if differs:
        return f"it was made with another {' and another '.join(differs)}"
    if rows.schema != columns_of:
        return "it has other columns"
    if rows.column("input").to_pylist() != list(range(first, first + count)):
        return "it has other inputs"
    if stated.get("rows_sha256") != rows_digest(rows) or stated.get("inputs_sha256") != inputs_digest(rows):
        return "its rows were changed after they were written"
    return None


def rows_digest(rows: pa.Table) -> str:
    """SHA-256 of the columns as JSON, hexadecimal: independent of how Arrow lays out the same values in memory."""
    digest = hashlib.sha256()
    for name in rows.column_names:
        digest.update(json.dumps([name, rows.column(name).to_pylist()]).encode())
    return digest.hexdigest()


def inputs_digest(rows: pa.Table) -> str:
    """SHA-256 over the digests of the inputs' content, in order; ``-`` for an input that could not be read."""
    return hashlib.sha256("\n".join(one or "-" for one in rows.column("sha256").to_pylist()).encode()).hexdigest()
