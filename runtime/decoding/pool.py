"""Pool of sandboxed decoder processes for encoded images. See docs/SECURITY-DECODING.md.

A decoder returns pixels and fixed texts. If it exceeds its memory or time limit, or crashes, its image results in an
ImageError and a new process replaces it; images in other processes are not affected.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from typing import Any

from stageproof.runtime.decoding.client import Decoder, DecoderLost, Starter, decoding_failed, pictures
from stageproof.runtime.errors import ImageError, IsolationError
from stageproof.runtime.headers.signatures import is_dicom
from stageproof.runtime.images.reader import Picture, Source, read
from stageproof.runtime.system.caller import warn
from stageproof.runtime.system.cpus import available_cpus

MOST = 4
"""Limit on the number of decoders, which is also at most the number of CPUs."""
LARGE_BYTES = 8 << 20
"""Files of more bytes, and images of more than a megapixel, are decoded one at a time, with more memory."""


def supported() -> bool:
    """Whether sandboxed decoding is supported here: on Linux."""
    return sys.platform == "linux"


class Decoders:
    """A pool of decoder processes, started on demand. Thread-safe, but not usable after a fork."""

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
        """Start the pool without waiting for it. Raises IsolationError."""
        with self._starting:
            if not self._starters:
                self._starters.append(Starter())

    def enforced(self) -> tuple[str, ...]:
        """Resources that the kernel limits or blocks for a decoder."""
        decoder = self._take(dicom=False)
        self._give_back(decoder)
        return decoder.enforced

    def large(self, size: int) -> contextlib.AbstractContextManager[Any]:
        """Context manager to hold while a file of `size` bytes is read and decoded; serialises files above
        `LARGE_BYTES`."""
        return self._large if size > LARGE_BYTES else contextlib.nullcontext()

    def decoded(
        self, data: bytes, where: str, most: int | None, max_pixels: int, *, alone: bool = False
    ) -> list[Picture]:
        """As `runtime.images.reader.decoded`. alone: whether the caller holds `large`.

        Raises ImageError; IsolationError if no process can be started.
        """
        from stageproof.runtime.decoding.process import TOO_LARGE

        dicom = is_dicom(data)
        large = alone or len(data) > LARGE_BYTES
        with self._large if large and not alone else contextlib.nullcontext():
            kind, response, pixels = self._request(data, where, most, max_pixels, dicom=dicom, large=large)
        if kind == TOO_LARGE:
            with self._large:
                kind, response, pixels = self._request(data, where, most, max_pixels, dicom=dicom, large=True)
        try:
            return pictures(kind, response, pixels, max_pixels)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(decoding_failed(where)) from None

    def close(self) -> None:
        """End all processes and wait for them. Images being decoded result in ImageErrors."""
        with self._changed:
            self._count -= len(self._idle)
            _end(self._idle, self._starters, os.getpid())

    def leave(self) -> None:
        """In a forked child: release the parent's processes without ending them."""
        self._finalizer.detach()
        for decoder in self._idle:
            decoder.close()
        for starter in self._starters:
            starter.leave()
        self._idle.clear()
        self._starters.clear()

    def _request(
        self, data: bytes, where: str, most: int | None, max_pixels: int, *, dicom: bool, large: bool
    ) -> tuple[int, Any, memoryview]:
        decoder = self._take(dicom=dicom)
        try:
            answer = decoder.decode(data, where, most, max_pixels, large=large)
        except DecoderLost:
            self._drop(decoder)
            raise ImageError(decoding_failed(where)) from None
        except BaseException:  # interrupted between request and response
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
                        decoder.close()  # its process was killed while idle
                        self._count -= 1
                if self._count < self._most:
                    self._count += 1
                    break
                if self._idle:
                    self._idle.pop(0).close()  # replaced by a decoder with pydicom
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
        """A new decoder. If the starter process was killed, it is restarted once."""
        for _ in range(2):
            self.start()
            starter = self._starters[0]
            decoder = None
            with contextlib.suppress(DecoderLost, OSError):
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
            "Decoder processes end immediately after their start. Free memory and processes, or pass isolate=False if "
            "this process is itself sandboxed."
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
    """The pool of this process. It ends when its last reference is dropped."""
    global _shared
    with _sharing:
        pool = None if _shared is None else _shared()
        if pool is None:
            pool = Decoders()
            _shared = weakref.ref(pool)
        return pool


def read_isolated(source: Source) -> Picture:
    """As `runtime.images.reader.read`, in a decoder process; the pool is kept until the program ends. For scripts.

    Decodes in this process if `supported` is False. Raises ImageError and IsolationError.
    """
    global _kept
    if _kept is None and supported():
        _kept = shared()
    return read(source, pool=_kept)


def decoding_pool() -> Decoders | None:
    """The pool of this process, started; None, with a warning, if not `supported`.

    Raises IsolationError.
    """
    if not supported():
        warn(
            "Images are decoded in this process without a sandbox, which requires Linux. Pass isolate=False to disable "
            "this warning."
        )
        return None
    pool = shared()
    pool.start()
    return pool


def _end(idle: list[Decoder], starters: list[Starter], process: int) -> None:
    """End the processes of a pool, unless this is a forked child."""
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
