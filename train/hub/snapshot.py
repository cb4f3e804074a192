"""`download`: the files of a run or bundle at one commit of a repository, in the cache of `huggingface_hub`.

Only files that a run or bundle consists of are downloaded. No code of a repository is run, and the names and sizes that
the Hub states are checked before the first file is requested.
"""

from __future__ import annotations

import glob
import logging
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import tqdm

from stageproof.runtime.artifacts.files import LARGEST_MODEL, read_once
from stageproof.runtime.bundle.manifest import LARGEST, Manifest, parse_manifest
from stageproof.runtime.errors import BundleError, CheckpointError, HubError, InputError
from stageproof.runtime.text.escapes import drawable
from stageproof.runtime.text.hints import command
from stageproof.train.hub.access import api, is_offline, refusals
from stageproof.train.hub.contents import (
    GIT,
    MANIFEST,
    README,
    SIGNATURE,
    WEIGHTS,
    is_part,
    kind_of,
    listed,
    megabytes,
)
from stageproof.train.hub.reference import Repository
from stageproof.train.runs.record import RECORD

logger = logging.getLogger(__name__)

_COMMIT = re.compile("[0-9a-f]{40}")
_MARKS = {"run": RECORD, "bundle": MANIFEST}


@dataclass(frozen=True)
class Listing:
    """What a repository contains at one commit."""

    repository: Repository
    commit: str
    sizes: dict[str, int]
    """File → bytes, as stated by the Hub, or of the files in the cache if offline."""

    def __str__(self) -> str:
        return self.repository.at(self.commit)


@dataclass(frozen=True)
class Snapshot:
    """Files at one commit, in the cache. They may be symbolic links."""

    repository: Repository
    commit: str
    files: dict[str, Path]
    manifest: Manifest | None
    """The manifest of a bundle; None for a run."""


def download(repository: Repository, kind: str) -> Snapshot:
    """The files of the ``run`` or ``bundle`` (`kind`) at the commit that the revision is at now. Logs commit and size.

    With HF_HUB_OFFLINE=1 they are taken from the cache.

    Raises InputError if the repository does not exist or contains something else, BundleError or CheckpointError if the
    bundle or run lacks a file, HubError if the Hub cannot be reached or the file system is full.
    """
    listing = _cached(repository) if is_offline() else list_files(repository)
    logger.info(f"hf:{repository.name}: {repository.revision} is commit {listing.commit}")
    check_names(listing)
    _check_kind(listing, kind)
    mark = _mark(listing, _MARKS[kind])
    manifest = None
    if kind == "bundle":
        manifest = parse_manifest(read_once(mark, LARGEST, "manifest"), Path(f"{listing}: {MANIFEST}"))
        wanted = [MANIFEST, *(entry.file for entry in manifest.files), *({SIGNATURE} & set(listing.sizes))]
    else:
        wanted = [name for name in listing.sizes if is_part(name, kind)]
    _check_complete(listing, kind, wanted)
    rest = set(listing.sizes) - {*wanted, README, *GIT}
    if rest:
        logger.info(f"{listing}: not downloaded, since no part of a {kind}: {listed(rest)}")
    return Snapshot(repository, listing.commit, _files(listing, wanted, mark.parent), manifest)


def list_files(repository: Repository) -> Listing:
    """The commit of the revision and its files, by the Hub. Raises as `train.hub.access.refusals`."""
    with refusals(repository):
        info = api().model_info(repository.name, revision=repository.revision, files_metadata=True)
    commit = info.sha or ""
    if not _COMMIT.fullmatch(commit) or (repository.is_commit and commit != repository.revision):
        raise HubError(f"hf:{repository.name}: the Hub names the commit {commit!r} for {repository.revision!r}.")
    return Listing(repository, commit, {one.rfilename: one.size or 0 for one in info.siblings or ()})


def check_names(listing: Listing) -> None:
    """Raise InputError if a file has a name that could leave the folder that it is written to."""
    for name in listing.sizes:
        parts = PurePosixPath(name)
        odd = "\\" in name or ":" in name or not name.isprintable() or str(parts) != name
        if odd or parts.is_absolute() or ".." in parts.parts or not parts.parts:
            raise InputError(
                f"{listing} contains a file called {name!r}, which is not a relative path inside the repository. "
                "Nothing was downloaded."
            )


def _check_kind(listing: Listing, kind: str) -> None:
    found = kind_of(listing.sizes)
    if found == kind:
        return
    if found is None:
        raise InputError(
            f"{listing} is neither a run (it has no {RECORD}) nor a bundle (no {MANIFEST}) of Stageproof: it contains "
            f"{listed(listing.sizes)}. Nothing was downloaded."
        )
    if found == "both":
        raise InputError(f"{listing} contains both {RECORD} and {MANIFEST}. Expected a {kind} alone.")
    use = (
        f"Export the run first: {command('export', '--from', listing.repository)}"
        if found == "run"
        else f"Predict with it: {command('runtime', '--from', listing.repository, 'scan.jpg')}"
    )
    raise InputError(f"{listing} is a {found}, expected a {kind}. {use}")


def _mark(listing: Listing, name: str) -> Path:
    """The file that says what the repository is, in the cache, which then knows the commit of the revision."""
    if listing.sizes[name] > LARGEST:
        raise InputError(
            f"{listing}: {name} has {megabytes(listing.sizes[name])}, expected at most {megabytes(LARGEST)}."
        )
    with refusals(listing.repository):
        found = Path(
            hf_hub_download(
                listing.repository.name, name, revision=listing.repository.revision, local_files_only=is_offline()
            )
        )
    if found.parent.name != listing.commit:
        raise HubError(
            f"hf:{listing.repository.name}: {listing.repository.revision} moved from commit {listing.commit[:12]} to "
            f"{found.parent.name[:12]} meanwhile. Run the command again."
        )
    return found


def _check_complete(listing: Listing, kind: str, wanted: list[str]) -> None:
    needed = wanted if kind == "bundle" else [RECORD, WEIGHTS]
    missing = [name for name in needed if name not in listing.sizes]
    if not missing:
        return
    if is_offline():
        raise HubError(
            f"{listing} is not whole in the cache {constants.HF_HUB_CACHE}: {listed(missing)} missing, and "
            "HF_HUB_OFFLINE is set. Unset it, or copy the cache again."
        )
    if kind == "bundle":
        raise BundleError(f"{listing} lacks files that its {MANIFEST} lists: {listed(missing)}. Nothing was loaded.")
    raise CheckpointError(
        f"{listing} has no {WEIGHTS}, the weights of a run: it contains {listed(listing.sizes)}. Ask its owner to push "
        "the run again."
    )


def _files(listing: Listing, wanted: list[str], folder: Path) -> dict[str, Path]:
    """The wanted files in the cache, downloaded if they are not there. folder: of the commit in the cache."""
    cache = Path(constants.HF_HUB_CACHE)
    total = sum(listing.sizes[file] for file in wanted)
    found = {file: folder / file for file in wanted}
    new = [file for file, path in found.items() if not path.is_file()]
    if largest := next((file for file in wanted if listing.sizes[file] > LARGEST_MODEL), None):
        raise InputError(f"{listing}: {largest} has {megabytes(listing.sizes[largest])}, more than can be loaded.")
    if not new:
        logger.info(f"{listing}: {len(wanted)} files, {megabytes(total)}, in the cache {cache}")
    else:
        size = sum(listing.sizes[file] for file in new)
        logger.info(f"{listing}: downloading {len(new)} of {len(wanted)} files, {megabytes(size)}, to {cache}")
        _check_room(listing, cache, size)
        with refusals(listing.repository):
            api().snapshot_download(
                listing.repository.name,
                revision=listing.commit,
                allow_patterns=[glob.escape(file) for file in wanted],
                tqdm_class=_Bar,
            )
    for file, path in found.items():
        size = path.stat().st_size if path.is_file() else -1
        if size != listing.sizes[file]:
            raise HubError(
                f"{listing}: {file} has {max(size, 0)} bytes in the cache, {listing.sizes[file]} at the Hub. Remove "
                f"{folder} and run the command again."
            )
    return found


def _check_room(listing: Listing, cache: Path, needed: int) -> None:
    place = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise HubError(
            f"{listing} needs {megabytes(needed)}, and {place} has {megabytes(free)} free. Free disk space, or set "
            "HF_HOME to a folder on another disk."
        )


def _cached(repository: Repository) -> Listing:
    """What the cache has of the revision. Raises HubError if it has neither a run nor a bundle."""
    for mark in _MARKS.values():
        try:
            path = Path(hf_hub_download(repository.name, mark, revision=repository.revision, local_files_only=True))
        except LocalEntryNotFoundError:
            continue
        folder = path.parent
        sizes = {one.relative_to(folder).as_posix(): one.stat().st_size for one in folder.rglob("*") if one.is_file()}
        return Listing(repository, folder.name, sizes)
    raise HubError(
        f"{repository} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set. Unset it to "
        "download, or give a local path."
    )


class _Bar(tqdm):
    """The library's progress bar, drawn only in a terminal; it moves the cursor, which `Escaping` would show."""

    def __init__(self, *args: Any, **options: Any) -> None:
        stream = drawable(sys.stderr)
        options |= {"file": stream, "disable": bool(options.get("disable")) or not stream.isatty()}
        super().__init__(*args, **options)
