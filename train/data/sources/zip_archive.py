"""`unpacked`: a zip archive of a data set in a temporary folder, after checks of what its directory declares.

Links are not extracted; hidden files and those of macOS and Windows are left out, and counted.
"""

from __future__ import annotations

import errno
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.images.debris import is_debris
from stageproof.runtime.system.regular_files import open_regular
from stageproof.runtime.system.work_folders import work_folder
from stageproof.runtime.system.zips import BOUNDED
from stageproof.train.data.class_column import is_class
from stageproof.train.data.samples import Skipped
from stageproof.train.data.sources.folders import DEBRIS
from stageproof.train.data.sources.not_taken import EXPECTED

LARGEST = 16 << 30
"""Limit on the bytes of all members together; they are kept in memory."""
MOST_MEMBERS = 1 << 20
_RATIO, _UNCHECKED = 200, 256 << 20
"""Limit on the ratio of uncompressed to compressed bytes of an archive that has more than `_UNCHECKED` bytes."""
_PART = 1 << 20
_DOCUMENTS = {"readme", "license", "licence", "copying", "citation"}
_ZIP_LIKE = {".xlsx", ".docx", ".pptx", ".npz"}
_STEP = "Unpack it with a tool that you trust, check its content, and give the folder."


def is_zip(path: Path) -> bool:
    """Whether the file begins as a zip archive does."""
    try:
        with open_regular(path) as file:
            return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    except OSError:
        return False


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Path, tuple[Skipped, ...]]]:
    """Context manager: the folder of the archive's content, removed on exit, and what was not extracted.

    A single folder at the top of the archive, also beside a README or a licence, is the content.

    Raises DatasetError for members outside the archive, encrypted, nested or damaged archives, names that occur twice,
    and sizes beyond the limits.
    """
    with ExitStack() as stack:
        try:
            root = stack.enter_context(work_folder()) / "data"
            root.mkdir()
            with zipfile.ZipFile(path) as archive:
                members, skipped = _members(archive, path)
                for name, member in members.items():
                    _extract(archive, member, root / name, path)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
            raise DatasetError(
                f"{path} cannot be read as a zip archive: {error}. Copy it again, or unpack it."
            ) from error
        except OSError as error:
            step = "Free disk space, or set TMPDIR." if error.errno in (errno.ENOSPC, errno.EDQUOT) else _STEP
            raise DatasetError(f"{path} cannot be unpacked: {error.strerror or error}. {step}") from error
        top = [one for one in root.iterdir() if one.stem.lower() not in _DOCUMENTS or one.is_dir()]
        wrapped = len(top) == 1 and top[0].is_dir() and not is_class(top[0].name, None)
        yield top[0] if wrapped else root, skipped


def _members(archive: zipfile.ZipFile, path: Path) -> tuple[dict[str, zipfile.ZipInfo], tuple[Skipped, ...]]:
    """The files to extract by their path, and what is left out."""
    every = archive.infolist()
    _check_sizes(every, path)
    members: dict[str, zipfile.ZipInfo] = {}
    debris, links = 0, []
    for member in every:
        name = member.filename.replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if (
            name.startswith("/")
            or ".." in parts
            or any(":" in part for part in parts[:1])
            or "\0" in member.orig_filename
        ):
            raise DatasetError(f"{path} has a member outside the archive, {member.filename!r}. {_STEP}")
        if name.endswith("/"):
            continue
        name = "/".join(parts)  # AD//a.png and ./AD/a.png are AD/a.png
        if any(map(is_debris, parts)):
            debris += 1
            continue
        if stat.S_ISLNK(member.external_attr >> 16):
            links.append(name)
            continue
        if member.flag_bits & 1:
            raise DatasetError(f"{path} is encrypted ({member.filename!r}). Unpack it, and give the folder.")
        if member.compress_type not in BOUNDED:
            raise DatasetError(f"{path} is packed by another method than deflate ({member.filename!r}). {_STEP}")
        if name in members:
            raise DatasetError(f"{path} has {member.filename!r} twice. {_STEP}")
        members[name] = member
    folders = {str(parent) for name in members for parent in PurePosixPath(name).parents}
    if both := sorted(folders & members.keys()):
        raise DatasetError(f"{path} has {both[0]!r} both as a file and as a folder. {_STEP}")
    _check_kinds(list(members), path)
    skipped = [Skipped(DEBRIS, debris, "")] if debris else []
    skipped += [Skipped("links in the archive", len(links), links[0])] if links else []
    return members, tuple(skipped)


def _check_sizes(members: list[zipfile.ZipInfo], path: Path) -> None:
    total, packed = sum(one.file_size for one in members), sum(one.compress_size for one in members)
    stored = min(packed, path.stat().st_size)  # members that share their data are counted once
    if len(members) > MOST_MEMBERS or total > LARGEST:
        raise DatasetError(
            f"{path} has {len(members)} members of {total / 1e9:.1f} GB; at most {MOST_MEMBERS} of {LARGEST / 1e9:.0f} "
            "GB are read. Unpack it, and give the folder."
        )
    if total > _UNCHECKED and total > _RATIO * stored:
        raise DatasetError(
            f"{path} has {stored / 1e6:.1f} MB that unpack to {total / 1e6:.0f} MB, as archives made to exhaust memory "
            f"do. {_STEP}"
        )


def _check_kinds(names: list[str], path: Path) -> None:
    """Raise DatasetError for an archive in the archive, and for files that are zip archives of another kind."""
    if not names:
        raise DatasetError(f"{path} is an empty zip archive. Expected {EXPECTED}.")
    for suffix, what in ((".npy", "a NumPy archive (.npz)"), (".xml", "an Office document, such as Excel's .xlsx")):
        if (suffix == ".npy" and all(name.endswith(suffix) for name in names)) or (
            suffix == ".xml" and "[Content_Types].xml" in names
        ):
            raise DatasetError(
                f"{path} is {what}; expected {EXPECTED}. Write its images as PNG files into one folder for each class, "
                "or save its table as CSV."
            )
    if inner := next(
        (name for name in names if name.lower().endswith((".zip", ".tar.gz", ".tgz", ".rar", ".7z"))), None
    ):
        raise DatasetError(f"{path} has another archive inside, {inner!r}. Unpack both, and give the folder.")


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, path: Path) -> None:
    """Write one member, and stop at its declared size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as file:
        left = member.file_size
        while part := source.read(min(_PART, left + 1)):
            if left == member.file_size and part[:4] == b"PK\x03\x04" and target.suffix.lower() not in _ZIP_LIKE:
                raise DatasetError(f"{path} has another archive inside, {member.filename!r}. Unpack both.")
            left -= len(part)
            if left < 0:
                raise DatasetError(f"{path}: {member.filename!r} is larger than declared. {_STEP}")
            file.write(part)
