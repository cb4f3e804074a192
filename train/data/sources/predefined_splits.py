"""Reads datasets with a predefined split into folders, such as train/ and test/."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import canonical_label
from stageproof.train.data.identity.find_ids import with_ids
from stageproof.train.data.samples import Samples, Skipped
from stageproof.train.data.sources.folders import are_patients, class_folders, folders_in, holds_classes
from stageproof.train.data.sources.source import check_classes, load_samples


def load_parts(path: Path, patient_pattern: str | None = None) -> tuple[Samples, np.ndarray | None]:
    """The slices at `path`, and the (N,) str folder of each in a predefined split; None without a predefined split.

    Names begin with that folder; ids are searched for in the rest. Raises DatasetError as `load_samples`.
    """
    folders = _parts(path)
    if not folders:
        return load_samples(path, patient_pattern), None
    parts = [class_folders(folder) for folder in folders]
    samples = Samples(
        images=[image for part in parts for image in part.images],
        labels=np.concatenate([part.labels for part in parts]),
        names=[f"{folder.name}/{name}" for folder, part in zip(folders, parts, strict=True) for name in part.names],
        groups=None,
        source=str(path),
        paths=[name for part in parts for name in part.names],
        skipped=_together(parts),
    )
    check_classes(samples)
    return with_ids(samples, path, patient_pattern), np.repeat(
        [folder.name for folder in folders], [len(part) for part in parts]
    )


def _together(parts: Sequence[Samples]) -> tuple[Skipped, ...]:
    """The ignored files of all parts."""
    found: dict[str, Skipped] = {}
    for one in (skipped for part in parts for skipped in part.skipped):
        count = found[one.reason].count if one.reason in found else 0
        found[one.reason] = Skipped(one.reason, count + one.count, one.example)
    return tuple(found.values())


def in_training(part: np.ndarray) -> np.ndarray:
    """(N,) bool: the training slices of a predefined split, whose folder is named train, training, ….

    part: (N,) str, from `load_parts`.
    """
    return np.array([name.lower().startswith("train") for name in part], bool)


def _parts(path: Path) -> list[Path]:
    """The folders of a predefined split; [] if there is none."""
    if not path.is_dir():
        return []
    folders = folders_in(path)
    if any(canonical_label(folder.name) for folder in folders) or are_patients(folders):
        return []
    hold = [holds_classes(folder) for folder in folders]
    if not any(hold):
        return []
    if not all(hold):
        odd = ", ".join(repr(folder.name) for folder, holds in zip(folders, hold, strict=True) if not holds)
        raise DatasetError(f"{path}: {odd} contains no class folders, but the folders beside it do. Move it out.")
    return folders
