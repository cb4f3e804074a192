"""Code that runs in the processes of `runtime.decoding.pool`: the starter, and the decoders that it forks.

The starter imports the decoding libraries once, reads no images, and forks a decoder on request. It has a single
thread, so that forking is safe; a fork takes a millisecond. A decoder enters its sandbox
(`runtime.decoding.confinement`), then reads requests from its socket, decodes and responds. Both end when the host
closes its socket or ends.

Request: `REQUEST`, name for messages, encoded image. Response: `ANSWER`, JSON object, pixels of all frames.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import struct

from stageproof.runtime.decoding import confinement
from stageproof.runtime.errors import ImageError
from stageproof.runtime.headers.limits import TooLargeError
from stageproof.runtime.images.raster import FORMATS
from stageproof.runtime.images.reader import Picture, decoded

REQUEST = struct.Struct("<iQBIQ")
"""Frame limit or -1, pixel limit, whether `LARGE` applies, length of the name, length of the image."""
ANSWER = struct.Struct("<BIQ")
"""One of the three constants below, length of the JSON object, length of the pixels."""
DECODED, REFUSED, TOO_LARGE = 0, 1, 2

IMAGES, DICOM = b"i", b"d"
"""Kind of decoder to fork; pydicom is imported only for DICOM."""

SMALL, LARGE = 96 << 20, 400 << 20
"""Limits on the additional address space for decoding, in bytes. Only one decoder at a time gets the larger one, so
that four decoders stay below a gigabyte."""
SMALL_PIXELS = 1 << 20
"""Largest image, in pixels, that is decoded within `SMALL`."""
CPU_SECONDS = 4
"""CPU time for one image; the kernel counts whole seconds and kills the process within the fifth."""


def start_decoders(control: int) -> None:
    """Fork a decoder for every descriptor received through the socket `control`, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is meant for the host
    children: set[int] = set()

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG)[0]) > 0:
                children.discard(ended)

    signal.signal(signal.SIGCHLD, reap)
    _prepare()
    dicom = False
    with socket.socket(fileno=control) as host:
        while True:
            wanted, descriptors, _, _ = socket.recv_fds(host, 1, 1)
            if not wanted:
                break
            if wanted == DICOM and not dicom:
                dicom = True
                _prepare_dicom()
            child = os.fork()
            if child == 0:
                _become_decoder(host, descriptors[0])
            children.add(child)
            os.close(descriptors[0])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _prepare() -> None:
    """Import the decoders and decode one image of each format, because modules cannot be opened in the sandbox."""
    from PIL import Image

    Image.init()
    for form in FORMATS:
        buffer = io.BytesIO()
        with contextlib.suppress(Exception):  # a format that this build of Pillow lacks
            exif = Image.Exif()
            exif[0x0112] = 1
            Image.new("L", (8, 8)).save(buffer, form, **({"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}))
            decoded(buffer.getvalue(), "", 1, 64)
    with contextlib.suppress(ImageError):
        decoded(b"\x89PNG\r\n\x1a\n" + bytes(40), "", 1, 64)


def _prepare_dicom() -> None:
    """Import pydicom and its installed decoder plug-ins."""
    from stageproof.runtime.system.offline_import import import_without

    try:
        import_without("pydicom", "requests")
    except ImportError:
        return
    from pydicom.pixels import get_decoder
    from pydicom.uid import RLELossless, UID_dictionary

    for uid in UID_dictionary:
        with contextlib.suppress(NotImplementedError):
            get_decoder(uid).is_available  # noqa: B018  imports its plug-ins
    numbers = {0x02: 1, 0x10: 4, 0x11: 4, 0x100: 8, 0x101: 8, 0x102: 7, 0x103: 0}
    body = b"\x28\0\4\0CS\x0c\0MONOCHROME2 "
    body += b"".join(struct.pack("<HH2sHH", 0x28, element, b"US", 2, value) for element, value in numbers.items())
    native = b"\xe0\x7f\x10\0OW\0\0\x10\0\0\0" + bytes(range(16))
    packed = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x0f" + bytes(range(16)) + b"\0"
    items = [b"", packed]
    runs = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
    runs += b"".join(b"\xfe\xff\0\xe0" + struct.pack("<I", len(part)) + part for part in items)
    syntax = b"\2\0\x10\0UI" + struct.pack("<H", len(RLELossless) + 1) + RLELossless.encode() + b"\0"
    for head, pixels in ((b"", native), (syntax, runs + b"\xfe\xff\xdd\xe0\0\0\0\0")):
        with contextlib.suppress(ImageError):
            decoded(bytes(128) + b"DICM" + head + body + pixels, "", 1, 64)


def _become_decoder(host: socket.socket, descriptor: int) -> None:
    """Run the decoder in the forked child. Never returns."""
    try:
        host.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        confinement.die_with_parent()
        with socket.socket(fileno=descriptor) as connection:
            enforced = confinement.limit_resources(LARGE) + confinement.refuse_system_calls()
            text = json.dumps(enforced).encode()
            connection.sendall(ANSWER.pack(DECODED, len(text), 0) + text)
            with contextlib.suppress(OSError):
                while _answer(connection):
                    pass
    finally:
        os._exit(0)


def _answer(connection: socket.socket) -> bool:
    """Handle one request; False if the connection was closed."""
    head = _received(connection, REQUEST.size)
    if len(head) < REQUEST.size:
        return False
    most, max_pixels, large, name, length = REQUEST.unpack(head)
    confinement.set_address_space(LARGE if large else SMALL)
    confinement.set_cpu_time(CPU_SECONDS)
    where = _received(connection, name).decode("utf-8", "surrogateescape")
    kind, response, frames = _decode(connection, length, where, most, max_pixels, large=bool(large))
    text = json.dumps(response).encode()
    pixels = [frame.image.tobytes() for frame in frames] if len(frames) == 1 else []
    total = sum(frame.image.width * frame.image.height * len(frame.image.getbands()) for frame in frames)
    connection.sendall(b"".join((ANSWER.pack(kind, len(text), total), text, *pixels)))
    for frame in frames if len(frames) > 1 else ():
        connection.sendall(frame.image.tobytes())
    if large:
        del frames, pixels
        confinement.give_back_memory()
    return True


def _decode(
    connection: socket.socket, length: int, where: str, most: int, max_pixels: int, *, large: bool
) -> tuple[int, dict[str, object], list[Picture]]:
    """Read an image of `length` bytes and decode it: kind of response, JSON object, frames."""
    allowed = max_pixels if large else min(max_pixels, SMALL_PIXELS)
    try:
        frames = decoded(_received(connection, length), where, None if most < 0 else most, allowed)
    except TooLargeError as error:
        if allowed < max_pixels:
            return TOO_LARGE, {}, []
        return REFUSED, {"error": str(error)}, []
    except ImageError as error:
        return REFUSED, {"error": str(error)}, []
    response: dict[str, object] = {
        "frames": [(one.image.mode, *one.image.size) for one in frames],
        "transforms": frames[0].transforms,
        "warnings": frames[0].warnings,
    }
    return DECODED, response, frames


def _received(connection: socket.socket, length: int) -> bytes:
    """`length` bytes, or fewer if the connection was closed."""
    if length <= 1 << 16:
        return connection.recv(length, socket.MSG_WAITALL) if length else b""
    with connection.makefile("rb", buffering=1 << 16) as file:
        return file.read(length)
