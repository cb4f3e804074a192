"""Patient ids from file names and folders: published conventions, `ID_SLICE` names, and one folder for each patient.

A published convention (BIDS, OASIS, ADNI) is used if the paths of all images follow it. `ID_SLICE` names and folders
are only candidates (`Ids.assumed`), because batches, copies and counters can look the same; they are used if image
similarity confirms them (`train.data.identity.id_check`). docs/PATIENT_IDS.md lists the rules.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from itertools import compress
from pathlib import PurePosixPath

import numpy as np

from stageproof.runtime.labels import LabelSet
from stageproof.train.data.ids import Ids, numbered, session_numbers

_START, _END = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_CONVENTIONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("BIDS", re.compile(rf"{_START}sub-(?P<patient>[A-Za-z0-9]+)(?:[_/]ses-(?P<session>[A-Za-z0-9]+))?")),
    ("OASIS", re.compile(rf"{_START}(?P<patient>OAS[12]_\d{{4}})(?:_(?P<session>MR\d+))?{_END}")),
    ("OASIS", re.compile(rf"{_START}(?P<patient>OAS[34]\d{{4}})(?:_(?:MR|sess)_(?P<session>d\d{{4}}))?{_END}")),
    ("ADNI", re.compile(r"(?<!\d)(?P<patient>\d{3}_S_\d{4,5})(?!\d)")),
)
_ADNI_DATE = re.compile(r"(?<!\d)((?:19|20)\d{6})\d{6,}(?!\d)")
_ADNI_IMAGE = re.compile(rf"{_START}(?P<patient>I\d{{4,8}}){_END}")
_BIDS_SESSION = re.compile(rf"{_START}ses-([A-Za-z0-9]+)")
_COPY_WORD = (
    r"(?:aug(?:ment(?:ed|ation)?)?|copy|[hv]?flip(?:ped)?|rot(?:ated?|ation)?|mirror(?:ed)?|nois[ey]|bright(?:ness)?|"
    r"blur(?:red)?|zoom(?:ed)?|shift(?:ed)?|crop(?:ped)?|contrast)"
)
_COPY = re.compile(
    rf"(?:[_\- .]{_COPY_WORD}[_\-]?\d*)+$|\s*\(\d+\)$|^(?:{_COPY_WORD}\d*[_\- .])+|\s-\s?copy$", re.IGNORECASE
)
"""Prefixes and suffixes that programs add to the names of copied or augmented files."""
_PATIENT_WORD = re.compile(r"(?:^|[_\-. ])(?:p|pt|pat|patient|sub|subj|subject|participant)[_\-]?\d+$", re.IGNORECASE)
_ID_SLICE = re.compile(
    r"(?P<patient>.*\d[^_\-. ]*)[_\-. ]+(?:(?:slice|sl|s|z|axial|ax|coronal|cor|sagittal|sag|img|image|im|frame)"
    r"[_\-]?)?(?P<slice>\d{1,4})$",
    re.IGNORECASE,
)
_NO_ID = re.compile(
    r"(?:^|[_\-. ])(?:slice|sl|z|frame|aug|augmented|copy|batch|part|chunk|fold|shard|set|train|training|test|val|"
    r"valid|validation|class|label|cdr|axial|coronal|sagittal|original|images?|png|jpe?g|data)s?[_\-. ]?\d*$",
    re.IGNORECASE,
)
_NOT_IMAGES = set(".txt .csv .tsv .json .xml .md .html .pdf .doc .docx .xls .xlsx .zip".split())
MOST_SLICES = 1023
"""Maximum slice number: 256 is usual, and counters over a whole data set exceed it."""


def from_names(paths: Sequence[str], labels: np.ndarray, classes: LabelSet) -> tuple[Ids | None, list[str]]:
    """The ids in `paths`, or None; and notes on ids that were found but not used.

    paths: (N,) with ``/`` between folders, relative to the data. labels: (N,) int64, indices in
    `classes`, whose names are those of class folders and of no patient.
    """
    image = np.array([PurePosixPath(path).suffix.lower() not in _NOT_IMAGES for path in paths], bool)
    if not image.any():
        return None, []
    notes: list[str] = []
    for find in (_published, _adni_images, partial(_folders, classes=classes), _id_slice):
        found, note = find(paths, labels, image)
        if found is not None:
            return found, notes
        notes += [note] if note else []
    return None, notes


def names_no_patient(name: str) -> bool:
    """Whether the name of a folder or a prefix is that of a split, a copy or an image type and not of a patient."""
    return bool(_NO_ID.search(name))


def _published(paths: Sequence[str], labels: np.ndarray, image: np.ndarray) -> tuple[Ids | None, str]:
    """BIDS, OASIS and ADNI ids; for each path the first convention that matches its file name, else its folders."""
    found = [_first(path) for path in paths]
    matched = np.array([one is not None for one in found], bool)
    if not matched.any():
        return None, ""
    some = next(one for one in found if one is not None)
    if not matched[image].all():
        missed = np.flatnonzero(image & ~matched)
        return None, (
            f"{int((matched & image).sum())} of {int(image.sum())} names have {some[0]} ids, the others none, such as "
            f"{PurePosixPath(paths[missed[0]]).name!r}: not used"
        )
    # A file that is not an image gets an id of its own; the loader leaves it out as unreadable.
    subjects = [one[1] if one else f"/{at}" for at, one in enumerate(found)]
    if len(set(subjects)) < 2:
        return None, f"every name has the one {some[0]} id {some[1]!r}: not used"
    sessions = [one[2] if one else None for one in found]
    positions = np.array([_last_number(path) for path in paths], np.int64)
    name = PurePosixPath(paths[int(np.flatnonzero(image)[0])]).name
    first = found[int(np.flatnonzero(image)[0])]
    assert first is not None, "every image matched"
    description = f"patient {first[1]}" + (f", session {first[2]}" if first[2] else "")
    kinds = " and ".join(dict.fromkeys(one[0] for one in found if one))
    return Ids(
        "names",
        f"{kinds} ids in file names: {name} is {description}",
        numbered(subjects),
        session_numbers(subjects, sessions),
        positions,
    ), ""


def _first(path: str) -> tuple[str, str, str | None] | None:
    """(convention, subject, session) of one path."""
    for where in (PurePosixPath(path).name, path):
        for convention, pattern in _CONVENTIONS:
            match = pattern.search(where)
            if match:
                return convention, match["patient"], _session(convention, match, path)
    return None


def _session(convention: str, match: re.Match[str], path: str) -> str | None:
    """The session in a path; ADNI: image id or date; BIDS: also from a folder."""
    name = PurePosixPath(path).name
    if convention == "ADNI":
        found = _ADNI_IMAGE.search(name) or _ADNI_DATE.search(name)
        return found[1] if found else None
    session = match.groupdict().get("session")
    if convention == "BIDS" and session is None and (folder := _BIDS_SESSION.search(path)):
        return folder[1]
    return session


def _adni_images(paths: Sequence[str], labels: np.ndarray, image: np.ndarray) -> tuple[Ids | None, str]:
    """ADNI image ids without a subject, such as I12345, which identify a scan and not a patient."""
    matches = [_ADNI_IMAGE.search(PurePosixPath(path).name) for path in paths]
    if not all(compress(matches, image)):
        return None, ""
    subjects = [match["patient"] if match else f"/{at}" for at, match in enumerate(matches)]
    first = int(np.flatnonzero(image)[0])
    if not _repeat(subjects, image, labels):
        return None, ""
    origin = f"ADNI image ids in file names: {PurePosixPath(paths[first]).name} is scan {subjects[first]}"
    positions = np.array([_last_number(path) for path in paths], np.int64)
    return Ids("names", origin, numbered(subjects), None, positions, scans=True, assumed=True), ""


def _folders(paths: Sequence[str], labels: np.ndarray, image: np.ndarray, classes: LabelSet) -> tuple[Ids | None, str]:
    """One folder for each patient, inside or outside of the class folder; folders inside it are sessions."""
    parts = [[part for part in PurePosixPath(path).parts[:-1] if classes.find(part) is None] for path in paths]
    if all(part and part[0] == str(label) for part, label in zip(parts, labels.tolist(), strict=True)):
        parts = [part[1:] for part in parts]  # class folders named by position
    if not all(compress(parts, image)):
        return None, ""
    folders = [part[0] if part else f"/{at}" for at, part in enumerate(parts)]
    if other := next(filter(_NO_ID.search, compress(folders, image)), None):
        return None, f"folders such as {other!r} are not patient ids: not used"
    subjects, by_class = _by_class(folders, labels, image)
    if not _repeat(subjects, image, labels):
        return None, ""
    sessions = [part[1] if len(part) > 1 else None for part in parts]
    first = int(np.flatnonzero(image)[0])
    description = (
        f"a folder for each patient{' of a class' if by_class else ''}: {paths[first]} is in folder {folders[first]!r}"
    )
    positions = np.array([_last_number(path) for path in paths], np.int64)
    # If no patient has more than one folder at the second level, these are not sessions.
    several = len(set(zip(subjects, sessions, strict=True))) > len(set(subjects))
    found = session_numbers(subjects, sessions) if several else None
    return Ids("folders", description, numbered(subjects), found, positions, assumed=True), ""


def _id_slice(paths: Sequence[str], labels: np.ndarray, image: np.ndarray) -> tuple[Ids | None, str]:
    """`ID_SLICE` names: an id with a digit, a separator, and a slice number that several ids have."""
    stems = [_COPY.sub("", PurePosixPath(path).stem) for path in paths]
    matches = [_ID_SLICE.match(stem) for stem in stems]
    if not all(compress(matches, image)):
        return None, ""
    ids = [match["patient"] if match else f"/{at}" for at, match in enumerate(matches)]
    positions = np.array([int(match["slice"]) if match else -1 for match in matches], np.int64)
    shown = list(compress(ids, image))
    if any(_NO_ID.search(one) for one in shown):
        return None, ""
    ids, merged = _without_prefixes(ids)
    subjects, by_class = _by_class(ids, labels, image)
    if not _repeat(subjects, image, labels) or positions.max() > MOST_SLICES:
        return None, ""
    pairs = Counter(zip(subjects, positions.tolist(), [path.rpartition("/")[0] for path in paths], strict=True))
    stripped = merged or any(_COPY.search(PurePosixPath(path).stem) for path in paths)
    if max(pairs.values()) > 1 and not stripped:
        return None, ""
    numbers: dict[int, set[object]] = defaultdict(set)
    for subject, position in compress(zip(subjects, positions.tolist(), strict=True), image):
        numbers[position].add(subject)
    if np.median([len(users) for users in numbers.values()]) < 2:  # a counter over the whole set
        return None, ""
    first = int(np.flatnonzero(image)[0])
    description = (
        f"ids in file names{', by class' if by_class else ''}: {PurePosixPath(paths[first]).name} is id {ids[first]}, "
        f"slice {positions[first]}"
    )
    scans = not all(_PATIENT_WORD.search(one) for one in shown)
    return Ids("names", description, numbered(subjects), None, positions, scans=scans, assumed=True), ""


def _without_prefixes(ids: Sequence[str]) -> tuple[list[str], bool]:
    """The ids, each replaced by its shortest suffix that is also an id (``x2_p017`` → ``p017``); whether any changed.

    A prefix that only some files of an id have indicates copies, which must not become another patient.
    """
    known, short = set(ids), {}
    for one in known:
        ends = [one[at.end() :] for at in re.finditer(r"[_\-. ]+", one)]
        short[one] = next((end for end in reversed(ends) if end in known and re.search(r"\d", end)), one)
    return [short[one] for one in ids], any(one != end for one, end in short.items())


def _by_class(ids: Sequence[str], labels: np.ndarray, image: np.ndarray) -> tuple[list[object], bool]:
    """The ids, or (class, id) if at least half of them occur in several classes, as numbers that restart in each class.

    A patient has one class, except for the few whose stage changes between scans.
    """
    classes: dict[str, set[int]] = defaultdict(set)
    for one, label in compress(zip(ids, labels.tolist(), strict=True), image):
        classes[one].add(label)
    shared = sum(len(found) > 1 for found in classes.values())
    if 2 * shared >= len(classes):
        return list(zip(labels.tolist(), ids, strict=True)), True
    return list(ids), False


def _repeat(subjects: Sequence[object], image: np.ndarray, labels: np.ndarray) -> bool:
    """Whether the ids are distributed like those of patients: at least eight ids and two for each class, nearly all
    with several slices, none with more than `MOST_SLICES` or half of all slices."""
    counts = Counter(compress(subjects, image))
    sizes = np.array(list(counts.values()))
    classes = len(np.unique(labels[image]))
    return bool(
        len(sizes) >= max(8, 2 * classes)
        and np.median(sizes) >= 3
        and sizes[sizes >= 2].sum() >= 0.9 * sizes.sum()
        and sizes.max() <= MOST_SLICES
        and 2 * sizes.max() < sizes.sum()
    )


def _last_number(path: str) -> int:
    """The slice number in these conventions: the last number of up to four digits in the file name; -1 if none."""
    found = re.findall(r"(?<!\d)\d{1,4}(?!\d)", _COPY.sub("", PurePosixPath(path).stem))
    return int(found[-1]) if found else -1
