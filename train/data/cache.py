"""Storage for decoded slices: in memory, or in a memory-mapped file that all processes of a machine share."""

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
    """Allocates pixel arrays: in memory up to `limit` bytes, otherwise, or if `shared`, in a temporary file.

    The page cache holds the file once, regardless of the number of processes.
    """

    def __init__(self, limit: float, shared: bool) -> None:
        self.limit, self.shared = limit, shared
        self.path: Path | None = None
        self._stack = ExitStack()

    def allocate(self, shape: tuple[int, ...]) -> np.ndarray:
        """A uint8 array of `shape`. Raises DatasetError if the temporary folder has not enough space."""
        size = int(np.prod(shape))
        if not self.shared and size <= self.limit:
            return np.empty(shape, np.uint8)
        self.release()
        try:
            self.path = self._stack.enter_context(work_folder()) / "slices.u8"
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                # Reserve the space now: otherwise a full disk would cause a bus error at a later write.
                os.posix_fallocate(descriptor, 0, size)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.release()
            raise DatasetError(
                f"{size / 1e9:.1f} GB of decoded slices do not fit into {tempfile.gettempdir()}: {error}. Free disk "
                "space, set TMPDIR to another folder, or raise --cache-limit to keep them in memory."
            ) from error
        return np.memmap(self.path, np.uint8, "r+", shape=shape)

    def release(self) -> None:
        """Delete the file. Processes that have mapped it can still use it."""
        self._stack.close()
        self.path = None


def prepare_once(
    processes: ProcessGroup, limit: float, prepare: Callable[[Callable[[tuple[int, ...]], np.ndarray]], Prepared]
) -> Prepared:
    """The result of `prepare(allocate)`, which runs in one process of each machine; the others map its pixels.

    limit: maximum number of bytes kept in memory.
    """
    cache = Cache(limit, shared=processes.local_size > 1)
    try:
        data = prepare(cache.allocate) if processes.local_rank == 0 else None
        if processes.size == 1:
            assert data is not None
            return data
        # Everything except the pixels is sent; the pixels are mapped from the file.
        bare = None
        if data is not None:
            bare = (cache.path, data.slices.pixels.shape, replace(data, slices=replace(data.slices, pixels=_NONE)))
        packs = processes.all_gather((processes.node, bare))
        if data is None:
            path, shape, rest = next(pack for node, pack in packs if node == processes.node and pack is not None)
            assert path is not None, "a shared cache is a file"
            # Copy-on-write, although it is never written: torch warns of read-only arrays.
            data = replace(rest, slices=replace(rest.slices, pixels=np.memmap(path, np.uint8, "c", shape=shape)))
        processes.barrier()
        return data
    finally:
        cache.release()


_NONE = np.empty(0, np.uint8)
