"""Reads slices from class folders, from class folders inside patient folders, or from a BIDS dataset.

Hidden files and files that macOS and Windows create are ignored. A linked folder is read once. `Rows.skipped` lists
what was ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.images.debris import Files, files_below, is_debris
from stageproof.runtime.images.folders import dicom_without_image
from stageproof.runtime.labels import LabelSet
from stageproof.train.data.class_column import is_class, resolve
from stageproof.train.data.identity.from_names import names_no_patient
from stageproof.train.data.identity.participants import class_of_each, participants_file
from stageproof.train.data.samples import Skipped
from stageproof.train.data.sources.not_taken import is_of_another_kind, not_taken
from stageproof.train.data.sources.rows import Part, Rows

_KNOWN = {"groups.csv", "participants.tsv", "participants.json", "dataset_description.json", "README", "README.md"}
DEBRIS = "hidden files, or files created by macOS or Windows"
FEWEST_PATIENT_FOLDERS = 8
"""Minimum number of folders with class folders to be read as patients; fewer are parts of a split, such as train."""
_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev"}


def folder_parts(root: Path, classes: LabelSet | None, by_position: bool = True) -> list[Part]:
    """The slices in `root`: class folders, class folders inside patient folders or inside the parts of a split, or a
    BIDS dataset with classes in participants.tsv. by_position: as for `train.data.class_column.resolve`.

    Raises DatasetError for anything else."""
    folders = folders_in(root)
    if not any(is_class(folder.name, classes) for folder in folders):
        if are_patients(folders, classes):
            return [Part("", _patients(root, folders, classes))]
        if parts := _parts(root, folders, classes):
            return [Part(folder.name, class_folders(folder, classes, by_position)) for folder in parts]
        bids = _bids(root, folders, classes)
        if bids is not None:
            return [Part("", bids)]
    return [Part("", class_folders(root, classes, by_position))]


def folders_in(root: Path) -> list[Path]:
    """The folders in `root`, sorted, without hidden folders and those of the operating system."""
    return sorted(folder for folder in root.iterdir() if folder.is_dir() and not is_debris(folder.name))


def holds_classes(folder: Path, classes: LabelSet | None) -> bool:
    """Whether one of the folders in `folder` has the name of a class."""
    return any(is_class(inner.name, classes) for inner in folder.iterdir() if inner.is_dir())


def are_patients(folders: Sequence[Path], classes: LabelSet | None) -> bool:
    """Whether `folders` are patients: all contain class folders, and their number and names are not those of parts of a
    split."""
    return (
        len(folders) >= FEWEST_PATIENT_FOLDERS
        and all(holds_classes(folder, classes) for folder in folders)
        and not any(names_no_patient(folder.name) for folder in folders)
    )


def _parts(root: Path, folders: Sequence[Path], classes: LabelSet | None) -> Sequence[Path]:
    """The folders of a predefined split; empty if there is none."""
    if folders and all(folder.name.casefold() in _PARTS and folders_in(folder) for folder in folders):
        return folders
    hold = [holds_classes(folder, classes) for folder in folders]
    if not any(hold):
        return ()
    if not all(hold):
        odd = ", ".join(repr(folder.name) for folder, holds in zip(folders, hold, strict=True) if not holds)
        raise DatasetError(f"{root}: {odd} contains no class folders, but the folders beside it do. Move it out.")
    return folders


def class_folders(root: Path, classes: LabelSet | None, by_position: bool = True) -> Rows:
    """The slices in the class folders in `root`; some classes may be empty or missing.

    Raises DatasetError if `root` has other folders, or two folders for one class.
    """
    names = [folder.name for folder in folders_in(root)]
    if not names:
        raise DatasetError(
            f"{root}: expected one folder for each class, found no folder at all{_content(root)}. Give the folder that "
            "contains the class folders."
        )
    try:
        found, labels = resolve(names, f"{root}, class folders", classes, by_position=by_position)
    except DatasetError as error:
        first = files_below(root).files[:8]
        known = any(is_class(name, classes) for name in names)
        if first and not known and all(is_of_another_kind(file) for file in first):
            raise DatasetError(f"{root}: expected one folder for each class. {not_taken(first[0])}") from error
        advice = "Give the folder that contains the class folders, and move others out."
        raise type(error)(f"{error} {advice}") from error
    taken = labels.tolist()
    if doubled := [name for name, label in zip(names, taken, strict=True) if taken.count(label) > 1]:
        raise DatasetError(f"{root}: {', '.join(map(repr, doubled))} are the same class spelt twice. Merge them.")
    return _labelled(root, files_below(root), names, 0, [found.names[label] for label in taken])


def _labelled(root: Path, found: Files, classes: Sequence[str], depth: int, meant: Sequence[str] | None = None) -> Rows:
    """The files in `root` whose folder at `depth` is one of `classes`. meant: the names of the classes; None: these."""
    named = dict(zip(classes, meant or classes, strict=True))
    parts = [file.relative_to(root).parts for file in found.files]
    labels = [named.get(part[depth]) if len(part) > depth + 1 else None for part in parts]
    pairs = zip(parts, labels, strict=True)
    beside = ["/".join(part) for part, one in pairs if one is None and part[-1] not in _KNOWN]
    kept = [(file, one) for file, one in zip(found.files, labels, strict=True) if one is not None]
    return _rows(root, found, kept, beside, f"{root}, class folders", list(named.values()))


def _rows(
    root: Path,
    found: Files,
    kept: Sequence[tuple[Path, str]],
    beside: Sequence[str],
    where: str,
    declared: Sequence[str] = (),
    ratings: bool = False,
) -> Rows:
    """The rows of the files `kept` with their labels, without DICOM files that have no image."""
    kinds = [dicom_without_image(file) for file, _ in kept]
    bare = [file for (file, _), kind in zip(kept, kinds, strict=True) if kind is not None]
    kept = [pair for pair, kind in zip(kept, kinds, strict=True) if kind is None]
    name: Callable[[Path], str] = lambda file: file.relative_to(root).as_posix()  # noqa: E731
    skipped = [Skipped(DEBRIS, found.debris, "")] if found.debris else []
    for reason, files in (
        ("broken links, or links to a folder that was read already", [name(link) for link in found.links]),
        ("folders that cannot be read", [name(folder) for folder in found.unreadable]),
        ("files outside the class folders", beside),
        ("DICOM files without an image, such as DICOMDIR", [name(file) for file in bare]),
    ):
        skipped += [Skipped(reason, len(files), files[0])] if files else []
    return Rows(
        images=[file for file, _ in kept],
        values=[label for _, label in kept],
        names=[name(file) for file, _ in kept],
        where=where,
        declared=declared,
        ratings=ratings,
        skipped=tuple(skipped),
    )


def _patients(root: Path, folders: Sequence[Path], classes: LabelSet | None) -> Rows:
    """The slices of PATIENT/CLASS/FILE."""
    inner = sorted({name.name for folder in folders for name in folders_in(folder)})
    return _labelled(root, files_below(root), [name for name in inner if is_class(name, classes)], 1)


def _bids(root: Path, folders: Sequence[Path], classes: LabelSet | None) -> Rows | None:
    """The slices of a BIDS dataset with the classes of participants.tsv; None if `root` is not a BIDS dataset."""
    file = participants_file(root)
    people = [folder for folder in folders if folder.name.startswith("sub-")]
    if file is None or not people:
        return None
    found = files_below(root)
    inside = [one for one in found.files if one.relative_to(root).parts[0].startswith("sub-")]
    images = [one for one in inside if one.suffix.lower() not in {".json", ".tsv", ".txt", ".bval", ".bvec"}]
    labels, column = class_of_each([one.relative_to(root).as_posix() for one in images], file, classes)
    kept = [(image, label) for image, label in zip(images, labels, strict=True) if label]
    rows = _rows(root, found, kept, [], f"{file}, column {column.name!r}", ratings=column.ratings)
    without = [image.relative_to(root).as_posix() for image, label in zip(images, labels, strict=True) if not label]
    if without:
        more = Skipped(f"files of participants not in {file.name}", len(without), without[0])
        rows = Rows(**{**vars(rows), "skipped": (*rows.skipped, more)})
    return rows


def _content(root: Path) -> str:
    """The first file in `root` by name, for messages; empty if there is none."""
    files = sorted(path.name for path in root.iterdir() if path.is_file() and not is_debris(path.name))
    return f" beside {len(files)} files, such as {files[0]!r}" if files else ""
