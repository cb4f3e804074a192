"""Where decoded slices are kept: in memory, or in one file that all processes of a machine map."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.system.work_folders import work_folder
from stageproof.train.data.dataset import Prepared
from stageproof.train.distributed.process_group import ProcessGroup


class Cache:
    """Gives arrays for pixels: in memory up to `limit` bytes, unless `shared`; in a file of the temporary folder else.

    The page cache holds such a file once, however many processes map it.
    """

    def __init__(self, limit: float, shared: bool) -> None:
        self.limit, self.shared = limit, shared
        self.path: Path | None = None
        self._stack = ExitStack()

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """A uint8 array of `shape`. Raises DatasetError when the temporary folder has no room for it."""
        size = int(np.prod(shape))
        if not self.shared and size <= self.limit:
            return np.empty(shape, np.uint8)
        self.release()
        try:
            self.path = self._stack.enter_context(work_folder()) / "slices.u8"
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                # Reserved at once: a full disk would otherwise be a bus error at some later write.
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.release()
            raise DatasetError(
                f"{size / 1e9:.1f} GB of decoded slices do not fit {tempfile.gettempdir()}: {error}. Make room, point "
                "TMPDIR elsewhere, or raise --cache-limit to keep them in memory."
            ) from error
        return np.memmap(self.path, np.uint8, "r+", shape=shape)

    def release(self) -> None:
        """Take the file's name away; whoever has it mapped keeps it."""
        self._stack.close()
        self.path = None


def prepare_once(
    processes: ProcessGroup, limit: float, prepare: Callable[[Callable[[tuple[int, ...]], np.ndarray]], Prepared]
) -> Prepared:
    """What `prepare(allocate)` gives, prepared by one process of each machine and mapped by its others.

    limit: bytes that may be kept in memory.
    """
    cache = Cache(limit, shared=processes.local_size > 1)
    try:
        data = prepare(cache.allocate) if processes.local_rank == 0 else None
        if processes.size == 1:
            assert data is not None
            return data
        # Everything but the pixels travels; those are mapped from the file.
        bare = None
        if data is not None:
            bare = (cache.path, data.slices.pixels.shape, replace(data, slices=replace(data.slices, pixels=_NONE)))
        packs = processes.all_gather((processes.node, bare))
        if data is None:
            path, shape, rest = next(pack for node, pack in packs if node == processes.node and pack is not None)
            assert path is not None, "a shared cache lies in a file"
            # Copy on write: never written to, and a read-only array would make torch warn.
            data = replace(rest, slices=replace(rest.slices, pixels=np.memmap(path, np.uint8, "c", shape=shape)))
        processes.barrier()
        return data
    finally:
        cache.release()


_NONE = np.empty(0, np.uint8)
