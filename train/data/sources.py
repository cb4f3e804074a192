"""Where slices come from: class folders or a parquet file → `Samples`. (Phantoms: `train.data.phantom`.)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import DatasetError
from runtime.labels import LABELS, canonical_label
from train.data.samples import Samples


def load_samples(path: Path) -> Samples:
    """The labelled slices at `path`: a folder of class folders, or a parquet file in the Hugging Face image schema.

    There is at least one slice; a class may have none. Raises DatasetError saying what was found instead.
    """
    if path.is_dir():
        samples = class_folders(path)
    elif path.is_file() and path.suffix == ".parquet":
        samples = _parquet(path)
    elif path.exists():
        raise DatasetError(f"{path} is neither a folder of class folders nor a .parquet file.")
    else:
        raise DatasetError(f"{path} does not exist. Give a folder of class folders, or a .parquet file.")
    check_classes(samples)
    return samples


def check_classes(samples: Samples) -> None:
    """Raise DatasetError unless there is a slice of some class."""
    if not len(samples):
        raise DatasetError(
            f"{samples.source} has no image of any class. Expected images of {', '.join(LABELS)}, or of some of them."
        )


def absent_classes(labels: np.ndarray) -> tuple[str, ...]:
    """The classes that none of `labels` ((N,) int64, positions in LABELS) is of."""
    return tuple(label for index, label in enumerate(LABELS) if not (labels == index).any())


def check_trainable(samples: Samples) -> None:
    """Raise DatasetError unless there are two classes to tell apart."""
    absent = absent_classes(samples.labels)
    if len(LABELS) - len(absent) < 2:
        only = next(label for label in LABELS if label not in absent)
        raise DatasetError(
            f"{samples.source} has images of {only} alone: a classifier is trained on two classes or more. Add images "
            f"of {' or '.join(absent)}. (train.audit and train.evaluate take such data.)"
        )


def class_folders(root: Path) -> Samples:
    """The slices of the class folders in `root`, of which some may be empty or missing. Raises DatasetError."""
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    classes = {folder: canonical_label(folder.name) for folder in folders}
    strangers = [folder.name for folder, label in classes.items() if label is None]
    if folders and all(holds_classes(folder) for folder in folders):
        raise DatasetError(_dealt(root, [folder.name for folder in folders]))
    if strangers or not folders:
        found = ", ".join(repr(name) for name in strangers) or "no folder at all"
        raise DatasetError(
            f"{root}: expected one folder for each class ({', '.join(LABELS)}, in any common spelling), found "
            f"{found}. Give the folder that holds the class folders, and move what is no class out of it."
        )
    labels = list(classes.values())
    doubled = sorted({str(label) for label in labels if labels.count(label) > 1})
    if doubled:
        names = ", ".join(repr(folder.name) for folder, label in classes.items() if label in doubled)
        raise DatasetError(f"{root}: {names} are the same class spelt twice. Merge them.")
    files = [
        (file, LABELS.index(str(label)))
        for folder, label in classes.items()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    ]
    return Samples(
        images=[file for file, _ in files],
        labels=np.array([label for _, label in files], np.int64),
        names=[file.relative_to(root).as_posix() for file, _ in files],
        groups=None,
        source=str(root),
    )


def _dealt(root: Path, parts: list[str]) -> str:
    """What to do with a folder whose folders hold the classes, such as train/ and test/."""
    training = next((part for part in parts if part.lower().startswith("train")), parts[0])
    text = f"{root} holds {', '.join(parts)}, and the class folders are in there. Train on one: --data "
    others = [part for part in parts if part != training]
    if not others:
        return f"{text}{root / training}."
    return (
        f"{text}{root / training}. Then python -m train.evaluate --data {root / others[0]} judges the run on those it "
        f"has not seen; python -m train.audit --data {root} says how many are on both sides."
    )


def holds_classes(folder: Path) -> bool:
    """Whether one of the folders in `folder` is called as a class."""
    return any(canonical_label(inner.name) for inner in folder.iterdir() if inner.is_dir())


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
        # Published files name no patient and repeat names, so the row number makes each name unique.
        names=[f"{number:06d}/{Path((row or {}).get('path') or '').name}" for number, row in enumerate(rows)],
        groups=None,
        source=str(path),
    )


def _position(value: Any, names: list[str]) -> int | None:
    """The position in `names` that a label of a parquet file means: a whole number, also as 2.0 or "2", or a name."""
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
    """(N,) int64 positions in LABELS, through the class names that the file carries."""
    values = table.column("label").to_pylist()
    if any(isinstance(value, (list, dict)) for value in values):
        raise DatasetError(f"{path}: 'label' is {table.schema.field('label').type}, expected one number or name a row.")
    names = _class_names(table.schema.metadata or {})
    if names is None:
        if not all(isinstance(value, str) for value in values):
            kinds = ", ".join(sorted({"nothing" if value is None else type(value).__name__ for value in values}))
            raise DatasetError(
                f"{path}: 'label' holds {kinds}, and the file does not name its classes (no ClassLabel in its "
                "'huggingface' metadata). Write it with the datasets library, or give 'label' as class names."
            )
        names = sorted(set(values))
        values = [names.index(value) for value in values]
    mapping = [canonical_label(name) for name in names]
    if None in mapping:
        strangers = ", ".join(repr(name) for name, label in zip(names, mapping, strict=True) if label is None)
        raise DatasetError(f"{path}: {strangers} is none of the classes {', '.join(LABELS)}.")
    found = {value: _position(value, names) for value in set(values)}
    if outside := sorted((repr(value) for value, position in found.items() if position is None), key=str):
        raise DatasetError(
            f"{path}: {', '.join(outside[:5])} in the column 'label' is no class ({len(outside)} such values). "
            f"Expected whole numbers from 0 to {len(names) - 1}, for {', '.join(names)} in this order, or these names."
        )
    return np.array([LABELS.index(str(mapping[found[value] or 0])) for value in values], np.int64)


def _class_names(metadata: dict[bytes, bytes]) -> list[str] | None:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, TypeError, ValueError):
        return None
