"""`listed`: the inputs that paths, folders, patterns, tables, containers and URLs stand for, in a fixed order."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from stageproof.runtime.errors import InputError
from stageproof.runtime.headers.signatures import HEAD
from stageproof.runtime.images.folders import kind_of_other
from stageproof.runtime.system.regular_files import open_regular
from stageproof.runtime.text.hints import nearest_path
from stageproof.serving.archive.inputs import containers, tables, urls
from stageproof.serving.archive.inputs.entry import Entry, Skipped, is_url
from stageproof.serving.archive.inputs.folders import files


def check(paths: Sequence[str]) -> None:
    """Raise InputError for the first of `paths` that cannot be listed, before anything is loaded. Does not check URLs
    nor the content of tables and containers."""
    if not paths:
        raise InputError("no input was given. Name folders, files, patterns, lists or URLs after --in.")
    for path in paths:
        if is_url(path) or os.path.lexists(path) or next(_matches(path), None) is not None:
            continue
        what = "no file matches the pattern" if glob.has_magic(path) else "there is no file or folder"
        raise InputError(f"{what} {path!r}.{nearest_path(Path(path)) or ' Check the path.'}")


def listed(paths: Sequence[str], skipped: Skipped, *, outside: str) -> Iterator[Entry]:
    """The inputs of `paths`, each as often as it is named. skipped: counts the files that are no images.

    outside: absolute path of the output, which is not listed where it lies in an input folder.
    Raises InputError for a path that does not exist, a folder or pattern without an image, an unreadable table or
    container.
    """
    for path in paths:
        count = 0
        for entry in _of(path, skipped, outside):
            count += 1
            yield entry
        if not count:
            kinds = ", ".join(f"{number} {kind}" for kind, number in skipped.kinds.most_common())
            raise InputError(f"{path!r} has no image ({kinds or 'it is empty'}). Check the path.")


def _of(path: str, skipped: Skipped, outside: str) -> Iterator[Entry]:
    if is_url(path):
        for entry in urls.found(path, skipped):
            yield from _inside(entry, skipped)
    elif os.path.isdir(path):  # noqa: PTH112  names that are not UTF-8
        yield from _folder(path, skipped, outside)
    elif os.path.lexists(path):
        yield from _file(path, skipped)
    else:
        for match in _matches(path):
            found = _folder(match, skipped, outside) if os.path.isdir(match) else _file(match, skipped)  # noqa: PTH112
            yield from found


def _matches(path: str) -> Iterator[str]:
    found = glob.glob(path, recursive=True) if glob.has_magic(path) else []  # noqa: PTH207  names that are not UTF-8
    return iter(sorted(found))


def _folder(path: str, skipped: Skipped, outside: str) -> Iterator[Entry]:
    for file in files(path, skipped):
        if os.path.abspath(file.path).startswith(outside + os.sep):  # noqa: PTH100
            continue
        if containers.is_container(file.name):
            yield from _inside(_stated(file.path, file.stat()), skipped)
            continue
        other = kind_of_other(file.name, lambda file=file: _head(file.path))  # type: ignore[misc]
        if other is None:
            yield _stated(file.path, file.stat())
        else:
            skipped.add(other)


def _file(path: str, skipped: Skipped) -> Iterator[Entry]:
    """A file that was named: a table, a container, or an image whatever its content, so that its row says why not."""
    if path.lower().endswith(tables.SUFFIXES):
        for name, patient in tables.rows(path):
            entry = Entry(name) if is_url(name) else _stated(name, _status(name))
            yield Entry(entry.path, size=entry.size, modified=entry.modified, patient=patient)
    else:
        yield from _inside(_stated(path, _status(path)), skipped)


def _inside(entry: Entry, skipped: Skipped) -> Iterator[Entry]:
    """The members of a container; any other file itself."""
    if not containers.is_container(entry.path):
        yield entry
        return
    try:
        file = urls.opened(entry.path) if is_url(entry.path) else open_regular(entry.path)
    except OSError as error:
        raise InputError(f"{entry.path} cannot be read: {error.strerror or error}. Check its permissions.") from error
    with file:
        yield from containers.members(entry.path, file, entry.modified, skipped)


def _status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        return None  # listed all the same: its row says that it cannot be read


def _stated(path: str, status: os.stat_result | None) -> Entry:
    return Entry(path) if status is None else Entry(path, size=status.st_size, modified=status.st_mtime_ns)


def _head(path: str) -> bytes:
    with open_regular(path) as file:
        return file.read(HEAD)
