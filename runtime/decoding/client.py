"""Host side of the decoder processes: starting them, sending requests over sockets, validating their responses."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

import stageproof
from stageproof.runtime.errors import ImageError, IsolationError
from stageproof.runtime.headers.limits import ALL_FRAMES
from stageproof.runtime.images.reader import Picture

if TYPE_CHECKING:
    import socket
    import subprocess

_SECONDS = 120
"""Wall-clock timeout for a decoder; long, because its CPU time is limited separately and the machine may be busy."""

_START = """
import sys, types
from importlib import import_module
sys.path[:] = sys.argv[4:]
for name, place in (("stageproof", sys.argv[1]), ("stageproof.runtime", sys.argv[2])):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [place]
import_module("stageproof.runtime.decoding.process").start_decoders(int(sys.argv[3]))
"""
"""Start code of the process. Creates empty package modules, because the runtime's `__init__` imports more than a
decoder needs."""


class DecoderLost(Exception):  # noqa: N818
    """The decoder process has ended."""


class Decoder:
    """A decoder process and its socket. Not thread-safe."""

    def __init__(self, connection: socket.socket, *, dicom: bool) -> None:
        self._connection = connection
        self.dicom = dicom
        """Whether the process has imported pydicom."""
        self.enforced: tuple[str, ...] = ()

    def greet(self) -> None:
        """Wait until the process is ready. Raises DecoderLost."""
        import socket

        # Kernel timeouts: Python's own timeouts would poll before each call.
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._connection.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _SECONDS, 0))
        _, enforced, _ = self._answer(0)
        self.enforced = tuple(map(str, enforced)) if isinstance(enforced, list) else ()

    def decode(
        self, data: bytes, where: str, most: int | None, max_pixels: int, *, large: bool
    ) -> tuple[int, Any, memoryview]:
        """The response, as defined in `runtime.decoding.process`. Raises DecoderLost."""
        from stageproof.runtime.decoding.process import REQUEST

        name = where.encode("utf-8", "surrogateescape")
        most = -1 if most is None else min(most, 1 << 30)
        head = REQUEST.pack(most, max_pixels, large, len(name), len(data)) + name
        try:
            if len(data) < 1 << 16:
                self._connection.sendall(head + data)
            else:
                self._connection.sendall(head)
                self._connection.sendall(data)
        except OSError as error:
            raise DecoderLost from error
        return self._answer(max_pixels * ALL_FRAMES * 3)

    def alive(self) -> bool:
        """Whether the connection is still open."""
        import socket

        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self._connection.close()

    def _answer(self, most: int) -> tuple[int, Any, memoryview]:
        from stageproof.runtime.decoding.process import ANSWER

        try:
            first = self._connection.recv(1 << 16)
            while len(first) < ANSWER.size:
                first += self._more(ANSWER.size - len(first))
            kind, text, pixels = ANSWER.unpack_from(first)
            if text > 1 << 20 or pixels > most:
                raise DecoderLost
            rest = bytearray(text + pixels)
            view = memoryview(rest)
            at = len(first) - ANSWER.size
            view[:at] = first[ANSWER.size :]
            while at < len(rest):
                count = self._connection.recv_into(view[at:])
                if not count:
                    raise DecoderLost
                at += count
            return kind, json.loads(rest[:text]), view[text:]
        except (OSError, ValueError) as error:
            raise DecoderLost from error

    def _more(self, count: int) -> bytes:
        some = self._connection.recv(count)
        if not some:
            raise DecoderLost
        return some


class Starter:
    """The process that forks decoders."""

    def __init__(self) -> None:
        import socket
        import subprocess

        runtime = Path(__file__).parents[1]
        paths = [str(Path(path).absolute()) for path in sys.path if path]
        ours, theirs = socket.socketpair()
        with theirs:
            command = [_python(), "-I", "-S", "-B", "-c", _START, str(Path(stageproof.__file__).parent), str(runtime)]
            try:
                self._process: subprocess.Popen[bytes] = subprocess.Popen(
                    [*command, str(theirs.fileno()), *paths],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    cwd="/",
                    env={**_ENVIRONMENT, **{name: os.environ[name] for name in _INHERITED if name in os.environ}},
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise IsolationError(
                    f"No decoder process can be started ({error.strerror}). Allow new processes, or pass isolate=False "
                    "if this process is itself sandboxed."
                ) from None
        self._control = ours
        self._turn = threading.Lock()

    def fork(self, *, dicom: bool) -> socket.socket:
        """The socket of a new decoder. Raises OSError."""
        import socket

        from stageproof.runtime.decoding.process import DICOM, IMAGES

        ours, theirs = socket.socketpair()
        try:
            with theirs, self._turn:
                socket.send_fds(self._control, [DICOM if dicom else IMAGES], [theirs.fileno()])
        except OSError:
            ours.close()
            raise
        return ours

    def close(self) -> None:
        self._control.close()
        with contextlib.suppress(Exception):
            self._process.wait(5)
            return
        self._process.kill()
        self._process.wait()

    def leave(self) -> None:
        self._control.close()
        self._process.returncode = 0  # child of another process: must not be waited for


_ENVIRONMENT = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_INHERITED = ("LD_LIBRARY_PATH",)


def _python() -> str:
    """Path of the Python interpreter. In a program that embeds Python, `sys.executable` is that program, or the first
    python3 in PATH, which may be another Python; an interpreter of this one's prefix is preferred to that."""
    prefixes, executable = (sys.exec_prefix, sys.base_exec_prefix), sys.executable or ""
    names = (f"python{sys.version_info.major}.{sys.version_info.minor}", "python3")
    own = [f"{prefix}/bin/{name}" for prefix in prefixes for name in names]
    inside = any(Path(executable).is_relative_to(prefix) for prefix in prefixes)
    for path in (executable, *own) if inside else (*own, executable):
        if path and Path(path).name.startswith("python") and os.access(path, os.X_OK):
            return path
    raise IsolationError(
        "No Python interpreter was found to start decoder processes with. Pass isolate=False if this process is itself "
        "sandboxed."
    )


def pictures(kind: int, response: Any, pixels: memoryview, max_pixels: int) -> list[Picture]:
    """The pictures in a decoder's response, which is validated because the process may have been compromised.

    Raises ImageError, ValueError, KeyError or TypeError.
    """
    from stageproof.runtime.decoding.process import DECODED

    if kind != DECODED:
        raise ImageError(_text(response["error"]))
    transforms, warnings = tuple(map(_text, response["transforms"])), tuple(map(_text, response["warnings"]))
    pictures, at = [], 0
    for mode, width, height in response["frames"]:
        bands = {"L": 1, "RGB": 3}[mode]
        if not (width > 0 and height > 0 and width * height <= max_pixels):
            raise ValueError
        end = at + width * height * bands
        image = Image.frombytes(mode, (width, height), pixels[at:end])
        pictures.append(Picture(image, transforms, warnings))
        at = end
    if not pictures or at != len(pixels):
        raise ValueError
    return pictures


def _text(value: object) -> str:
    """The value as one line of printable text."""
    if not isinstance(value, str):
        raise TypeError
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value[:5000])


def decoding_failed(where: str) -> str:
    from stageproof.runtime.decoding.process import CPU_SECONDS, LARGE

    return (
        f"{where} could not be decoded: the decoder needs more than {CPU_SECONDS} s of CPU time or {LARGE >> 20} MiB "
        "of memory, or crashed. The file may be damaged or malicious. Copy or export it again."
    )
