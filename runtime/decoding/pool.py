"""Encoded images decoded in processes of their own, which the kernel limits: see docs/SECURITY-DECODING.md.

What is sent back are pixels, and texts of our own. A process that needs more memory or time than it may, or crashes, is
lost with its image, which becomes an ImageError; another takes its place. Other images are in other processes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from typing import Any

from stageproof.runtime.decoding.client import Decoder, Lost, Starter, lost, pictures
from stageproof.runtime.errors import ImageError, IsolationError
from stageproof.runtime.headers.signatures import is_dicom
from stageproof.runtime.images.reader import Picture, Source, read
from stageproof.runtime.system.caller import warn
from stageproof.runtime.system.cpus import available_cpus

MOST = 4
"""Decoders at most; no more than CPUs."""
LARGE_BYTES = 8 << 20
"""Files of more bytes are decoded one at a time, with more memory, as are images of more than a megapixel."""


def supported() -> bool:
    """Whether images can be decoded in processes with limits here: on Linux."""
    return sys.platform == "linux"


class Decoders:
    """A pool of processes, started as they are needed. Safe from several threads; a forked child needs its own."""

    def __init__(self) -> None:
        self._most = max(1, min(MOST, available_cpus()))
        self._idle: list[Decoder] = []
        self._count = 0
        self._changed = threading.Condition()
        self._large = threading.Lock()
        self._starting = threading.Lock()
        self._starters: list[Starter] = []  # one or none
        self._finalizer = weakref.finalize(self, _end, self._idle, self._starters, os.getpid())
        _all.add(self)

    def start(self) -> None:
        """Begin to start, and do not wait for it. Raises IsolationError."""
        with self._starting:
            if not self._starters:
                self._starters.append(Starter())

    def enforced(self) -> tuple[str, ...]:
        """What the kernel limits or keeps away from a decoder here."""
        decoder = self._take(dicom=False)
        self._give_back(decoder)
        return decoder.enforced

    def large(self, size: int) -> contextlib.AbstractContextManager[Any]:
        """To be held while a file of `size` bytes is read and decoded: those of `LARGE_BYTES` come one at a time."""
        return self._large if size > LARGE_BYTES else contextlib.nullcontext()

    def decoded(
        self, data: bytes, where: str, most: int | None, max_pixels: int, *, alone: bool = False
    ) -> list[Picture]:
        """As `runtime.images.reader.decoded`. alone: the caller holds `large`.

        Raises ImageError, and IsolationError where no process can be started.
        """
        from stageproof.runtime.decoding.process import TOO_LARGE

        dicom = is_dicom(data)
        large = alone or len(data) > LARGE_BYTES
        with self._large if large and not alone else contextlib.nullcontext():
            kind, said, pixels = self._asked(data, where, most, max_pixels, dicom=dicom, large=large)
        if kind == TOO_LARGE:
            with self._large:
                kind, said, pixels = self._asked(data, where, most, max_pixels, dicom=dicom, large=True)
        try:
            return pictures(kind, said, pixels, max_pixels)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(lost(where)) from None

    def close(self) -> None:
        """End all processes, and wait for them. Those that decode end too, and their images are ImageErrors."""
        with self._changed:
            self._count -= len(self._idle)
            _end(self._idle, self._starters, os.getpid())

    def leave(self) -> None:
        """In a forked child: let go of what belongs to the parent process, and end nothing."""
        self._finalizer.detach()
        for decoder in self._idle:
            decoder.close()
        for starter in self._starters:
            starter.leave()
        self._idle.clear()
        self._starters.clear()

    def _asked(
        self, data: bytes, where: str, most: int | None, max_pixels: int, *, dicom: bool, large: bool
    ) -> tuple[int, Any, memoryview]:
        decoder = self._take(dicom=dicom)
        try:
            answer = decoder.decode(data, where, most, max_pixels, large=large)
        except Lost:
            self._drop(decoder)
            raise ImageError(lost(where)) from None
        except BaseException:  # an interrupt between question and answer
            self._drop(decoder)
            raise
        self._give_back(decoder)
        return answer

    def _take(self, *, dicom: bool) -> Decoder:
        with self._changed:
            while True:
                for index in reversed(range(len(self._idle))):
                    if self._idle[index].dicom or not dicom:
                        decoder = self._idle.pop(index)
                        if decoder.alive():
                            return decoder
                        decoder.close()  # ended by somebody while it had nothing to do
                        self._count -= 1
                if self._count < self._most:
                    self._count += 1
                    break
                if self._idle:
                    self._idle.pop(0).close()  # one that has no pydicom makes place for one that has
                    break
                self._changed.wait()
        try:
            return self._started(dicom=dicom)
        except BaseException:
            with self._changed:
                self._count -= 1
                self._changed.notify()
            raise

    def _started(self, *, dicom: bool) -> Decoder:
        """A new one. The starter may have been ended by somebody, and is then started again, once."""
        for _ in range(2):
            self.start()
            starter = self._starters[0]
            decoder = None
            with contextlib.suppress(Lost, OSError):
                decoder = Decoder(starter.fork(dicom=dicom), dicom=dicom)
                decoder.greet()
                return decoder
            if decoder is not None:
                decoder.close()
            with self._starting:
                if starter in self._starters:
                    self._starters.remove(starter)
            starter.close()
        raise IsolationError(
            "The processes that decode images end as soon as they are started. Free memory and processes, or pass "
            "isolate=False where this process is itself confined."
        )

    def _give_back(self, decoder: Decoder) -> None:
        with self._changed:
            self._idle.append(decoder)
            self._changed.notify()

    def _drop(self, decoder: Decoder) -> None:
        decoder.close()
        with self._changed:
            self._count -= 1
            self._changed.notify()


_all: weakref.WeakSet[Decoders] = weakref.WeakSet()
_shared: weakref.ReferenceType[Decoders] | None = None
_sharing = threading.Lock()
_kept: Decoders | None = None


def shared() -> Decoders:
    """The pool of this process. It ends when nobody refers to it any more."""
    global _shared
    with _sharing:
        pool = None if _shared is None else _shared()
        if pool is None:
            pool = Decoders()
            _shared = weakref.ref(pool)
        return pool


def read_isolated(source: Source) -> Picture:
    """As `runtime.images.reader.read`, for programs: decoded in processes with limits, which stay until the program
    ends.

    On systems without them it is decoded here. Raises ImageError and IsolationError.
    """
    global _kept
    if _kept is None and supported():
        _kept = shared()
    return read(source, pool=_kept)


def decoding_pool() -> Decoders | None:
    """The pool of this process, which begins to start; None, with a warning, on systems where there is none.

    Raises IsolationError.
    """
    if not supported():
        warn(
            "Images are decoded in this process, without limits of the kernel, which need Linux. isolate=False says "
            "that this is known."
        )
        return None
    pool = shared()
    pool.start()
    return pool


def _end(idle: list[Decoder], starters: list[Starter], process: int) -> None:
    """End the processes of a pool, in the process that started them."""
    if os.getpid() == process:
        for decoder in idle:
            decoder.close()
        for starter in starters:
            starter.close()
    idle.clear()
    starters.clear()


def _in_child() -> None:
    global _shared, _sharing, _kept
    _shared, _sharing, _kept = None, threading.Lock(), None
    for pool in list(_all):
        pool.leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
