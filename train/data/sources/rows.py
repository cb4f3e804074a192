"""`Rows`: what a reader finds, before labels are resolved; `samples_of` makes `Samples` of the parts of a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageproof.runtime.labels import LabelSet
from stageproof.train.data.class_column import resolve
from stageproof.train.data.ids import Ids, numbered, session_numbers
from stageproof.train.data.samples import Samples, Skipped


@dataclass(frozen=True)
class Rows:
    """The slices of a source, or of one part of it. The sequences have one entry for each slice."""

    images: Sequence[bytes | Path]
    """Encoded images, or their paths."""
    values: Sequence[Any]
    """Labels as the source has them: names or numbers."""
    names: Sequence[str]
    """Unique names."""
    where: str
    """The source of the labels, for messages."""
    paths: Sequence[str] | None = None
    """Paths in which ids are searched for; None if these are the names."""
    declared: Sequence[str] = ()
    """Classes of the source that may have no slice."""
    ratings: bool = False
    """Whether numbers are Clinical Dementia Ratings."""
    subjects: Sequence[Any] | None = None
    """The patient of each slice in a column of the source; None if it has none."""
    sessions: Sequence[str | None] | None = None
    ids_from: str = ""
    """Description of the columns of `subjects` and `sessions`."""
    notes: tuple[str, ...] = ()
    """Ids that were found but not used, with the reason."""
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class Part:
    """One part of a predefined split."""

    name: str
    """Such as ``train``; empty if the source has no predefined split."""
    rows: Rows


def samples_of(source: str, parts: Sequence[Part], classes: LabelSet | None, by_position: bool = True) -> Samples:
    """The slices of all parts; names begin with that of the part. One label set is resolved for all of them.

    Raises DatasetError as `train.data.class_column.resolve`.
    """
    rows = [part.rows for part in parts]
    names = [f"{part.name}/{name}" if part.name else name for part in parts for name in part.rows.names]
    found, labels = resolve(
        [value for one in rows for value in one.values],
        rows[0].where if len(rows) == 1 else source,
        classes,
        declared=[name for one in rows for name in one.declared],
        ratings=all(one.ratings for one in rows),
        names=names,
        by_position=by_position,
    )
    plain = len(parts) == 1 and rows[0].paths is None and not parts[0].name
    return Samples(
        images=[image for one in rows for image in one.images],
        labels=labels,
        names=names,
        groups=None,
        source=source,
        ids=_ids(rows),
        paths=None if plain else [path for one in rows for path in (one.names if one.paths is None else one.paths)],
        skipped=together([one.skipped for one in rows]),
        notes=tuple(dict.fromkeys(note for one in rows for note in one.notes)),
        classes=found,
    )


def together(parts: Sequence[Sequence[Skipped]]) -> tuple[Skipped, ...]:
    """The ignored files of several parts, one entry for each reason."""
    found: dict[str, Skipped] = {}
    for one in (skipped for part in parts for skipped in part):
        count = found[one.reason].count if one.reason in found else 0
        found[one.reason] = Skipped(one.reason, count + one.count, one.example)
    return tuple(found.values())


def _ids(rows: Sequence[Rows]) -> Ids | None:
    """The ids in columns; None unless every part has them, and several patients."""
    if any(one.subjects is None for one in rows):
        return None
    subjects = [str(subject) for one in rows for subject in one.subjects or ()]
    if len(set(subjects)) < 2:
        return None
    found = [session for one in rows for session in one.sessions or [None] * len(one.names)]
    return Ids("table", rows[0].ids_from, numbered(subjects), session_numbers(subjects, found))
