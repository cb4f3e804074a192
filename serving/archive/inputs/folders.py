"""The files below a folder, in a fixed order and without holding them in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator

from stageproof.runtime.images.debris import is_debris
from stageproof.serving.archive.inputs.entry import Skipped

DEBRIS = "hidden or left behind by a system"
LINKS = "broken links, or links to folders already read"
FOLDERS = "folders that cannot be read"


def files(root: str, skipped: Skipped) -> Iterator[os.DirEntry[str]]:
    """The files below `root`, sorted within each folder; the same ones as `runtime.images.debris.files_below`.

    Folders that links lead to follow after all others, each once. Memory: the names of one folder at a time.
    """
    seen: set[tuple[int, int]] = set()
    links: list[str] = []
    yield from _walk(root, skipped, seen, links)
    while links:
        now, links = sorted(links), []
        for link in now:
            if not os.path.exists(link) or _identity(link) in seen:  # noqa: PTH110  names that are not UTF-8
                skipped.add(LINKS)
            else:
                yield from _walk(link, skipped, seen, links)


def _walk(folder: str, skipped: Skipped, seen: set[tuple[int, int]], links: list[str]) -> Iterator[os.DirEntry[str]]:
    try:
        identity = _identity(folder)
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda one: one.name)
    except OSError:
        skipped.add(FOLDERS)
        return
    if identity in seen:
        return
    seen.add(identity)
    for entry in entries:
        if is_debris(entry.name):
            below = os.walk(entry.path) if entry.is_dir(follow_symlinks=False) else None
            skipped.add(DEBRIS, sum(len(names) for _, _, names in below) if below else 1)
        elif entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, skipped, seen, links)
        elif entry.is_symlink() and not entry.is_file():
            links.append(entry.path)
        elif entry.is_file():
            yield entry
        else:
            skipped.add("devices, sockets and pipes")


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116
    return status.st_dev, status.st_ino
