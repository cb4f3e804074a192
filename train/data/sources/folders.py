"""Reads slices from class folders, from class folders inside patient folders, or from a BIDS dataset.

Hidden files and files that macOS and Windows create are ignored. A linked folder is read once. `Samples.skipped` lists
what was ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.images.debris import files_below, is_debris
from stageproof.runtime.labels import LABELS, canonical_label
from stageproof.runtime.text.hints import command, quoted
from stageproof.train.data.identity.from_names import names_no_patient
from stageproof.train.data.identity.participants import labelled_by_participants, participants_file
from stageproof.train.data.samples import Samples, Skipped

_KNOWN = {"groups.csv", "participants.tsv", "participants.json", "dataset_description.json", "README", "README.md"}
FEWEST_PATIENT_FOLDERS = 8
"""Minimum number of folders with class folders to be read as patients; fewer are parts of a split, such as train."""


def folder_samples(root: Path) -> Samples:
    """The slices in `root`: class folders, class folders inside patient folders, or a BIDS dataset with classes in
    participants.tsv. Raises DatasetError for anything else."""
    folders = folders_in(root)
    if not any(canonical_label(folder.name) for folder in folders):
        if are_patients(folders):
            return _patients(root, folders)
        bids = _bids(root, folders)
        if bids is not None:
            return bids
    return class_folders(root)


def folders_in(root: Path) -> list[Path]:
    """The folders in `root`, sorted, without hidden folders and those of the operating system."""
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not is_debris(folder.name))


def holds_classes(folder: Path) -> bool:
    """Whether one of the folders in `folder` has the name of a class."""
    return any(canonical_label(inner.name) for inner in folder.iterdir() if inner.is_dir())


def are_patients(folders: Sequence[Path]) -> bool:
    """Whether `folders` are patients: all contain class folders, and their number and names are not those of parts of a
    split."""
    return (
        len(folders) >= FEWEST_PATIENT_FOLDERS
        and all(holds_classes(folder) for folder in folders)
        and not any(names_no_patient(folder.name) for folder in folders)
    )


def class_folders(root: Path) -> Samples:
    """The slices in the class folders in `root`; some classes may be empty or missing.

    Raises DatasetError if `root` has other folders, or two folders for one class.
    """
    folders = folders_in(root)
    classes = {folder: canonical_label(folder.name) for folder in folders}
    unknown = [folder.name for folder, label in classes.items() if label is None]
    if folders and all(holds_classes(folder) for folder in folders):
        raise DatasetError(_several_parts(root, [folder.name for folder in folders]))
    if unknown or not folders:
        found = ", ".join(repr(name) for name in unknown) or "no folder at all"
        raise DatasetError(
            f"{root}: expected one folder for each class ({', '.join(LABELS)}, in any common spelling), found "
            f"{found}. Give the folder that contains the class folders, and move other folders out of it."
        )
    labels = list(classes.values())
    doubled = sorted({str(label) for label in labels if labels.count(label) > 1})
    if doubled:
        names = ", ".join(repr(folder.name) for folder, label in classes.items() if label in doubled)
        raise DatasetError(f"{root}: {names} are the same class spelt twice. Merge them.")
    return _labelled(root, {folder.name: LABELS.index(str(label)) for folder, label in classes.items()}, 0)


def _labelled(root: Path, classes: dict[str, int], depth: int) -> Samples:
    """The files in `root` whose folder at `depth` is a key of `classes`, with their classes."""
    found = files_below(root)
    parts = [file.relative_to(root).parts for file in found.files]
    label = [classes.get(part[depth]) if len(part) > depth + 1 else None for part in parts]
    pairs = zip(parts, label, strict=True)
    beside = ["/".join(part) for part, one in pairs if one is None and part[-1] not in _KNOWN]
    kept = [(file, one) for file, one in zip(found.files, label, strict=True) if one is not None]
    return Samples(
        images=[file for file, _ in kept],
        labels=np.array([one for _, one in kept], np.int64),
        names=[file.relative_to(root).as_posix() for file, _ in kept],
        groups=None,
        source=str(root),
        skipped=_skipped(root, found.debris, found.links, beside),
    )


def _skipped(root: Path, debris: int, links: Sequence[Path], beside: Sequence[str]) -> tuple[Skipped, ...]:
    skipped = []
    if debris:
        skipped.append(Skipped("hidden files, or files created by macOS or Windows", debris, ""))
    if links:
        name = links[0].relative_to(root).as_posix()
        skipped.append(Skipped("broken links, or links to a folder that was read already", len(links), name))
    if beside:
        skipped.append(Skipped("files outside the class folders", len(beside), beside[0]))
    return tuple(skipped)


def _patients(root: Path, folders: Sequence[Path]) -> Samples:
    """The slices of PATIENT/CLASS/FILE."""
    inner = {name.name for folder in folders for name in folders_in(folder)}
    classes = {name: canonical_label(name) for name in inner}
    known = {name: LABELS.index(label) for name, label in classes.items() if label is not None}
    return _labelled(root, known, 1)


def _bids(root: Path, folders: Sequence[Path]) -> Samples | None:
    """The slices of a BIDS dataset with the classes of participants.tsv; None if `root` is not a BIDS dataset."""
    file = participants_file(root)
    people = [folder for folder in folders if folder.name.startswith("sub-")]
    if file is None or not people:
        return None
    found = files_below(root)
    inside = [one for one in found.files if one.relative_to(root).parts[0].startswith("sub-")]
    images = [one for one in inside if one.suffix.lower() not in {".json", ".tsv", ".txt", ".bval", ".bvec"}]
    names = [one.relative_to(root).as_posix() for one in images]
    labels = labelled_by_participants(names, file)
    if labels is None:
        raise DatasetError(
            f"{root} contains folders of participants, but {file.name} has no column with a class in every row "
            f"({', '.join(LABELS)}, in any common spelling). Add one, or give --data a CSV of path, label and patient."
        )
    rows = np.flatnonzero(labels >= 0)
    without = [name for name, label in zip(names, labels, strict=True) if label < 0]
    skipped = _skipped(root, found.debris, found.links, [])
    if without:
        skipped += (Skipped(f"files of participants not in {file.name}", len(without), without[0]),)
    return Samples(
        images=[images[row] for row in rows],
        labels=labels[rows],
        names=[names[row] for row in rows],
        groups=None,
        source=str(root),
        skipped=skipped,
    )


def _several_parts(root: Path, parts: list[str]) -> str:
    """The error for a folder whose subfolders contain the class folders, such as train/ and test/."""
    training = next((part for part in parts if part.lower().startswith("train")), parts[0])
    text = f"{root} contains {', '.join(parts)}, with the class folders inside. Train on one of them: --data "
    others = [part for part in parts if part != training]
    if not others:
        return f"{text}{quoted(str(root / training))}."
    return (
        f"{text}{quoted(str(root / training))}. Then evaluate on slices of other patients: "
        f"{command('train.evaluate', '--data', root / others[0])}. To find patients in both, audit them: "
        f"{command('train.audit', '--data', root)}"
    )
