"""`load_samples`: reads labelled slices from folders, parquet files, saved datasets, tables, or a zip of these."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.images.debris import files_below, is_debris
from stageproof.runtime.labels import LabelSet
from stageproof.runtime.text.hints import command, quoted
from stageproof.train.data.class_column import is_class
from stageproof.train.data.identity.find_ids import with_ids
from stageproof.train.data.samples import Samples, Skipped
from stageproof.train.data.sources.csv_table import SUFFIXES, from_table, lists_slices
from stageproof.train.data.sources.folders import folder_parts, folders_in
from stageproof.train.data.sources.hugging_face import (
    is_saved,
    others_beside,
    parquet_file,
    parquet_folder,
    part_path,
    saved_folder,
)
from stageproof.train.data.sources.not_taken import EXPECTED, not_taken
from stageproof.train.data.sources.rows import Part, samples_of, together
from stageproof.train.data.sources.zip_archive import is_zip, unpacked

_TABLES_OF_IDS = {"groups.csv", "participants.tsv"}
OTHER_PART = "not the training part of the predefined split"
_log = logging.getLogger(__name__)


def load_samples(
    path: Path,
    patient_pattern: str | None = None,
    classes: LabelSet | None = None,
    *,
    by_position: bool = True,
    training_part: bool = False,
) -> Samples:
    """The labelled slices at `path`, with patient ids from names, tables or headers (`train.data.identity.find_ids`).

    path: a folder (`train.data.sources.folders`), a parquet file or a folder of shards, a folder of `save_to_disk`
    (`train.data.sources.hugging_face`), a CSV of path, label and patient (`train.data.sources.csv_table`), or a zip
    archive of one of these. patient_pattern: regular expression that extracts ids from paths instead.
    classes: the label set of the data; None: the built-in one that its class names belong to.
    by_position: accept numbers as positions in `classes`. training_part: of a predefined split, read the part named
    train; the others are listed in `Samples.skipped`, and their files are not read.

    Raises DatasetError for invalid data, several parts of a predefined split, classes that are not in the label set, or
    if there is no slice of any class.
    """
    with opened(path) as (data, skipped):
        parts = _read(data, classes, by_position)
        if parts[0].name:
            training = [part for part in parts if part.name.lower().startswith("train")]
            if not training_part or len(training) != 1:
                raise DatasetError(_several_parts(path, data, [part.name for part in parts]))
            skipped += tuple(_not_trained_on(part) for part in parts if part is not training[0])
            classes = samples_of(str(data), parts, classes, by_position).classes  # of all parts, as `load_parts`
            parts = training
        return _samples(path, data, parts, skipped, patient_pattern, classes, by_position)


def load_parts(
    path: Path, patient_pattern: str | None = None, classes: LabelSet | None = None
) -> tuple[Samples, np.ndarray | None]:
    """As `load_samples`, and the (N,) str part of each slice in a predefined split; None without a predefined split.

    Parts are folders such as train/ and test/, or splits of parquet files and saved datasets. Names begin with the
    part; ids are searched for in the rest. All parts have one label set.
    """
    with opened(path) as (data, skipped):
        parts = _read(data, classes)
        samples = _samples(path, data, parts, skipped, patient_pattern, classes)
    part = np.repeat([part.name for part in parts], [len(part.rows.names) for part in parts])
    return samples, part if parts[0].name else None


def check_classes(samples: Samples) -> None:
    """Raise DatasetError unless there is a slice of some class."""
    if not len(samples):
        raise DatasetError(
            f"{samples.source} has no image of any class. Expected images of {', '.join(samples.classes.names)}, or of "
            "some of them."
        )


def absent_classes(labels: np.ndarray, classes: LabelSet) -> tuple[str, ...]:
    """The classes that do not occur in `labels` ((N,) int64, indices in `classes.names`)."""
    return tuple(name for index, name in enumerate(classes.names) if not (labels == index).any())


def check_trainable(samples: Samples) -> None:
    """Raise DatasetError unless there are slices of at least two classes."""
    absent = absent_classes(samples.labels, samples.classes)
    if len(samples.classes) - len(absent) < 2:
        only = next(name for name in samples.classes.names if name not in absent)
        raise DatasetError(
            f"{samples.source} has images of {only} alone; training needs images of two classes or more. Add images of "
            f"{' or '.join(absent)}. (train.audit and train.evaluate accept such data.)"
        )


def has_no_labels(folder: Path) -> bool:
    """Whether `folder` holds files alone that name no classes: no folders, parquet files, saved dataset or table."""
    files = [path for path in folder.iterdir() if not is_debris(path.name)]
    listed = is_saved(folder) or any(path.is_dir() or path.suffix.lower() == ".parquet" for path in files)
    return not listed and not tables_of(folder)


def tables_of(data: Path) -> list[Path]:
    """The tables that list slices: `data` itself, or those in a folder."""
    if data.is_file():
        return [data] if data.suffix.lower() in SUFFIXES else []
    tables = [path for path in sorted(data.iterdir()) if path.suffix.lower() in SUFFIXES and path.is_file()]
    return [path for path in tables if path.name not in _TABLES_OF_IDS and path.name[0] != "." and lists_slices(path)]


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, tuple[Skipped, ...]]]:
    """Context manager: `path`, or the folder of an archive's content; and what of the archive was not extracted."""
    if not path.exists():
        raise DatasetError(f"{path} does not exist. Give {EXPECTED}.")
    if not path.is_file() or not is_zip(path):
        yield path, ()
        return
    with unpacked(path) as (folder, skipped):
        try:
            yield folder, skipped
        except DatasetError as error:
            raise type(error)(str(error).replace(str(folder), str(path))) from error


def _read(data: Path, classes: LabelSet | None, by_position: bool = True) -> list[Part]:
    """The parts of the data; one without a name if it has no predefined split."""
    if data.is_file():
        suffix = data.suffix.lower()
        if suffix == ".parquet" or _begins(data, b"PAR1"):
            return parquet_file(data)
        if suffix in SUFFIXES:
            return [Part("", from_table(data))]
        raise DatasetError(not_taken(data))
    if not data.is_dir():
        raise DatasetError(not_taken(data))
    if is_saved(data):
        return saved_folder(data)
    if not any(is_class(folder.name, classes) for folder in folders_in(data)):
        found = files_below(data)
        if shards := [file for file in found.files if file.suffix.lower() == ".parquet"]:
            parts = parquet_folder(data, shards)
            first = replace(parts[0].rows, skipped=others_beside(data, found.files))
            return [Part(parts[0].name, first), *parts[1:]]
        if tables := tables_of(data):
            if len(tables) > 1:
                names = ", ".join(repr(path.name) for path in tables)
                raise DatasetError(
                    f"{data} has several tables of slices: {names}. Give one of them: --data {quoted(str(tables[0]))}."
                )
            _log.info("%s: the slices are those that %s lists", data, tables[0].name)
            return [Part("", from_table(tables[0]))]
        if not folders_in(data) and len(found.files) > 0:
            raise DatasetError(
                f"{data}: expected one folder for each class, found no folder. {not_taken(found.files[0])}"
            )
    return folder_parts(data, classes, by_position)


def _samples(
    path: Path,
    data: Path,
    parts: Sequence[Part],
    skipped: tuple[Skipped, ...],
    patient_pattern: str | None,
    classes: LabelSet | None,
    by_position: bool = True,
) -> Samples:
    """The slices of all parts; those of an archive (`data` is not `path`) are read into memory."""
    samples = replace(samples_of(str(data), parts, classes, by_position), source=str(path))
    samples = replace(samples, skipped=together([samples.skipped, skipped]))
    check_classes(samples)
    if data != path:
        inside = data.resolve()
        for image in samples.images:
            if isinstance(image, Path) and not image.resolve().is_relative_to(inside):
                raise DatasetError(f"{path} lists a file outside the archive, {str(image)!r}. Correct its table.")
        samples = replace(samples, images=[samples.read(at) for at in range(len(samples))])
    return with_ids(samples, data, patient_pattern)


def _not_trained_on(part: Part) -> Skipped:
    return Skipped(f"slices of the part {part.name}: {OTHER_PART}", len(part.rows.names), str(part.rows.names[0]))


def _begins(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _several_parts(path: Path, data: Path, parts: list[str]) -> str:
    """The error for data with a predefined split, such as folders train/ and test/ with the class folders inside."""
    training = next((part for part in parts if part.lower().startswith("train")), parts[0])
    others = [part for part in parts if part != training]
    text = f"{path} contains {', '.join(parts)}, "
    if data != path:
        return f"{text}parts of a split. Unpack it, and train on one of them: --data {quoted(training)}."
    files = [file for file in files_below(data).files if file.suffix.lower() == ".parquet"]
    text += "splits of a dataset. " if files or is_saved(data) else "with the class folders inside. "
    text += f"Train on one of them: --data {quoted(str(part_path(data, training, files)))}."
    if not others:
        return text
    return (
        f"{text} Then evaluate on slices of other patients: "
        f"{command('train.evaluate', '--data', part_path(data, others[0], files))}. To find patients in both, "
        f"audit them: {command('train.audit', '--data', path)}"
    )
