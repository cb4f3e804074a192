"""`files_below`: the files in a folder without hidden files and operating-system metadata (thumbnails, __MACOSX, …).

Shared by training and prediction, so that both find the same images in a folder.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_NAMES = {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"}  # Windows, macOS

_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
# macOS's zip, Synology's thumbnails, Windows, file systems


@dataclass(frozen=True)
class Files:
    """Result of `files_below`."""

    files: list[Path]
    """Sorted by path."""
    debris: int
    """Number of excluded hidden and metadata files, including those in excluded folders."""
    links: list[Path]
    """Links that were not followed: broken, or to a folder whose files are already in `files`."""
    unreadable: list[Path]
    """Folders that cannot be read, whose files are not in `files`."""


def is_debris(name: str) -> bool:
    """Whether a file or folder of this name (without path) is hidden or operating-system metadata."""
    return name.startswith(".") or is_left_behind(name)


def is_left_behind(name: str) -> bool:
    """Whether a file or folder of this name is operating-system metadata; hidden files of the user do not count."""
    lower = name.lower()
    known = lower in _NAMES or lower in _FOLDERS or lower == ".ds_store"
    return known or lower.startswith(("._", "thumbs.db:"))  # AppleDouble: "._scan.jpg"


def files_below(root: Path) -> Files:
    """The files in `root` at any depth, without hidden and metadata files. Follows links to folders, each folder once.

    `root` itself may have any name.
    """
    files: list[Path] = []
    debris, ignored = 0, []
    unreadable: list[Path] = []
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        links: list[Path] = []
        for start in waiting:
            found, left_out = _walk(start, seen, links, unreadable)
            files += found
            debris += left_out
        # Real folders first, so that files reachable both ways are listed by their real path.
        waiting = []
        queued: set[tuple[int, int]] = set()
        for link in sorted(links):
            key = _key(link)
            if key is None or key in seen or key in queued:
                ignored.append(link)
            else:
                queued.add(key)
                waiting.append(link)
    return Files(sorted(files), debris, sorted(ignored), sorted(unreadable))


def _walk(start: Path, seen: set[tuple[int, int]], links: list[Path], unreadable: list[Path]) -> tuple[list[Path], int]:
    """Files below `start`, and the number of excluded files. Adds links to `links`, real folders to `seen`, and those
    that cannot be read to `unreadable`."""
    files: list[Path] = []
    debris = 0
    for folder, folders, names in os.walk(start, onerror=lambda error: unreadable.append(Path(error.filename))):
        here = Path(folder)
        key = _key(here)
        if key is None or key in seen:
            folders.clear()
            continue
        seen.add(key)
        for name in folders:
            if is_debris(name):
                debris += sum(len(inside) for _, _, inside in os.walk(here / name))
        kept = [name for name in folders if not is_debris(name)]
        links += [here / name for name in kept if (here / name).is_symlink()]
        folders[:] = [name for name in kept if not (here / name).is_symlink()]
        for name in names:
            if is_debris(name):
                debris += 1
            elif (here / name).is_file():
                files.append(here / name)
            elif (here / name).is_symlink():
                links.append(here / name)  # broken link
    return files, debris


def _key(folder: Path) -> tuple[int, int] | None:
    """Identity of a folder (device, inode), independent of its path; None for a broken link."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
