"""`images_in` and `images_of`: find the images in folders and paths, by file suffix or content."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from stageproof.runtime.headers.signatures import HEAD, image_format, is_dicom, what_is
from stageproof.runtime.images.debris import files_below, is_left_behind

_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".pgm", ".ppm", ".jp2"}

_DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}

_STORAGE = "1.2.840.10008.5.1.4.1.1"

_WITHOUT_IMAGE = (
    # SOP classes without an image to classify (PS3.4 B.5, PS3.6 A); entries with a final dot are prefixes.
    *(f"{_STORAGE}.9.", f"{_STORAGE}.11.", f"{_STORAGE}.66.", f"{_STORAGE}.68.", f"{_STORAGE}.78."),
    *(f"{_STORAGE}.79.", f"{_STORAGE}.88.", f"{_STORAGE}.104.", f"{_STORAGE}.200."),
    *(f"{_STORAGE}.{last}" for last in ("4.2", "66", "67", "77.1.5.3", "131")),
    *(f"{_STORAGE}.481.{number}" for number in (3, 4, 5, 6, 7, 8, 9, 10)),
    *("1.2.840.10008.5.1.4.34.", "1.2.840.10008.5.1.4.38.", "1.2.840.10008.5.1.4.39.", "1.2.840.10008.5.1.4.43."),
)

_DICOMDIR = "1.2.840.10008.1.3.10"


@dataclass(frozen=True)
class Images:
    """Result of `images_in` and `images_of`."""

    images: list[Path]
    """In the order of the paths; those of a folder are sorted."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Kind of file → number of skipped files."""

    def skipped_words(self) -> str:
        """One line of text: "skipped 9 files: 7 hidden or left behind by a system, 2 text"; empty if none."""
        total = sum(self.skipped.values())
        if not total:
            return ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.skipped.most_common())
        return f"skipped {total} file{'s' if total > 1 else ''}: {kinds}"


def images_in(folder: str | os.PathLike[str]) -> Images:
    """The images in `folder` at any depth, recognised by suffix, or by content if the suffix is unknown."""
    found = files_below(Path(folder))
    skipped = Counter({"hidden or left behind by a system": found.debris} if found.debris else {})
    if found.links:
        skipped["broken links, or links to folders already read"] = len(found.links)
    if found.unreadable:
        skipped["folders that cannot be read"] = len(found.unreadable)
    images = []
    for file in found.files:
        other = _other(file)
        if other is None:
            images.append(file)
        else:
            skipped[other] += 1
    return Images(images, skipped)


def images_of(paths: Iterable[Path], closed: Collection[Path] = ()) -> Images:
    """The images in `paths`: folders are replaced by the images in them, other paths are kept.

    A folder without images, or in `closed`, is kept, so that reading it raises an error. Operating-system metadata
    files are skipped even if listed explicitly, as shell patterns do, unless nothing else is listed.
    """
    given = list(paths)
    images: list[Path] = []
    skipped: Counter[str] = Counter()
    wanted = [path for path in given if not is_left_behind(path.name)]
    for path in wanted or given:
        if path.is_dir() and path not in closed:
            found = images_in(path)
            images += found.images or [path]
            skipped += found.skipped
        else:
            images.append(path)
    for path in given if wanted else ():
        if is_left_behind(path.name):
            left = files_below(path) if path.is_dir() else None
            skipped["hidden or left behind by a system"] += len(left.files) + left.debris if left else 1
    return Images(images, skipped)


def dicom_without_image(file: Path) -> str | None:
    """The kind of a DICOM file that has no image to classify, such as ``DICOMDIR``; None for any other file."""
    if file.suffix.lower() in _IMAGE_SUFFIXES:
        return None
    other = _other(file)
    return other if other in ("DICOMDIR", "DICOM without an image") else None


def _other(file: Path) -> str | None:
    """The kind of a file that is not an image; None for images, and for files with an image's suffix."""

    def read_head() -> bytes:
        with file.open("rb") as content:
            return content.read(HEAD)

    return kind_of_other(file.name, read_head)


def kind_of_other(name: str, read_head: Callable[[], bytes]) -> str | None:
    """As `_other`, for a file anywhere. read_head: its first `HEAD` bytes, only called for other suffixes than those of
    images; an OSError counts as an image, because reading the image raises it again."""
    suffix = Path(name).suffix.lower()
    if suffix in _IMAGE_SUFFIXES:
        return None
    try:
        head = read_head()
    except OSError:
        return None
    if is_dicom(head):
        return _without_image(head)
    if suffix in _DICOM_SUFFIXES or image_format(head) is not None:
        return None
    if not head:
        return "empty"
    named = re.match(r"(?:is|contains) (?:an? )?([^,;(]+)", what_is(head) or "")
    return named.group(1).strip() if named else "of another kind"


def _without_image(head: bytes) -> str | None:
    """The kind of a DICOM file without an image, by its SOP class; None for an image, or without SOP class."""
    found = re.search(rb"(?:\x02\0\x02\0|\x08\0\x16\0)(?:UI..|..\0\0)([0-9.]{10,64})", head, re.DOTALL)
    uid = found.group(1).decode("ascii") if found else ""
    if uid == _DICOMDIR:
        return "DICOMDIR"
    without = any(uid.startswith(known) if known.endswith(".") else uid == known for known in _WITHOUT_IMAGE)
    return "DICOM without an image" if without else None
