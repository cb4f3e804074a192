"""Folders of plain files made from a snapshot: the library's cache has symbolic links, which a bundle must not have."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import cached_assets_path, constants

from stageproof.runtime.errors import HubError
from stageproof.runtime.system.work_folders import work_folder
from stageproof.train.hub.reference import Repository

logger = logging.getLogger(__name__)

COPIES = Path("hub")
"""Folder of runs that are worked on, in the working folder."""
_WORK = ".checkout-"


def checkout(repository: Repository, commit: str, files: Mapping[str, Path | bytes]) -> Path:
    """A folder with exactly these files, in the library's cache (`huggingface_hub.cached_assets_path`).

    files: relative path → a file, or its content. Files are hard links where the file system permits, so they must not
    be written to. A folder from an earlier call is used again if it has the same files.

    Raises HubError if it cannot be written.
    """
    try:
        assets = Path(constants.HF_ASSETS_CACHE).expanduser()
        place = cached_assets_path("stageproof", repository.name, "commits", assets_dir=assets)
        folder = place / commit
        if _has(folder, files):
            return folder
        with work_folder(place, _WORK) as work:
            for name, source in files.items():
                target = work / "new" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if isinstance(source, bytes):
                    target.write_bytes(source)
                else:
                    _link(source.resolve(), target)
            shutil.rmtree(folder, ignore_errors=True)
            _move(work / "new", folder)
    except (OSError, ValueError) as error:  # ValueError: a file where the library expects a folder
        raise HubError(
            f"{repository.at(commit)} cannot be written to the cache {constants.HF_ASSETS_CACHE}: {error}. Free disk "
            "space, or set HF_HOME to another folder."
        ) from error
    return folder


def working_copy(repository: Repository, folder: Path) -> Path:
    """A copy of a checked-out run in the working folder, for a command that writes into the run. Logs its path.

    folder: as returned by `checkout`. A copy of the same commit that exists already is returned as it is, with what was
    written to it since. Raises HubError if it cannot be written.
    """
    copy = COPIES / f"{repository.name.replace('/', '--')}-{folder.name[:12]}"
    if copy.exists():
        logger.info(
            f"{copy} is the copy of an earlier call, with what was written to it since. Delete it to start anew"
        )
        return copy
    try:
        COPIES.mkdir(exist_ok=True)
        with work_folder(COPIES, _WORK) as work:
            shutil.copytree(folder, work / "new")
            _move(work / "new", copy)
    except OSError as error:
        raise HubError(f"{copy} cannot be written: {error}. Run the command in another folder.") from error
    logger.info(f"{copy} is the copy that is worked on")
    return copy


def _has(folder: Path, files: Mapping[str, Path | bytes]) -> bool:
    """Whether the folder has these files and no other ones, by name and size, or by content where it is given."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if found != set(files):
        return False
    for name, source in files.items():
        path = folder / name
        if path.is_symlink():
            return False
        if path.read_bytes() != source if isinstance(source, bytes) else path.stat().st_size != source.stat().st_size:
            return False
    return True


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, one without hard links, or a file of another user
        shutil.copyfile(source, target)


def _move(folder: Path, place: Path) -> None:
    """Rename; the folder that another process has put there meanwhile is as good."""
    try:
        folder.rename(place)
    except OSError:
        if not place.is_dir():
            raise
