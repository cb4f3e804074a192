"""Uploads for people and scripts: multipart forms, raw files and zip files become images with names."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from stageproof.runtime.headers.signatures import HEAD
from stageproof.runtime.images.debris import is_debris
from stageproof.runtime.images.folders import kind_of_other
from stageproof.runtime.system.zips import BOUNDED
from stageproof.serving.http.inference.errors import Refusal, bad

MAX_MEMBERS = 10_000
"""Limit on the entries of all zip files of a request."""
_ENTRY = b"PK\x01\x02"
"""Start of each entry of the central directory."""
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


@dataclass(frozen=True)
class Upload:
    """One uploaded file."""

    name: str
    content: bytes


class _InMemory(MultiPartParser):
    spool_max_size = 1 << 40  # never to disk; the caller limits the body


async def uploads(request: Request, chunks: AsyncIterator[bytes], most: int) -> list[Upload]:
    """The files of a multipart form, in its order. most: limit on their number. Raises Refusal (400)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise bad(
            "the body is no multipart form; expected Content-Type: multipart/form-data with files, as "
            "curl -F file=@scan.png sends it."
        )
    parser = _InMemory(request.headers, chunks, max_files=most, max_fields=0)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise bad(
            f"the form cannot be read ({error.message}). Expected 1 to {most} files, each with a file name, and no "
            "other fields."
        ) from None
    except (KeyError, ValueError, UnicodeError):  # of malformed headers of a part
        raise bad("the form is malformed. Expected multipart/form-data, as curl -F file=@scan.png sends it.") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        found = [Upload(file.filename or "", await file.read()) for file in files]
    finally:
        await form.close()
    if not found:
        raise bad("the form has no file; expected at least one, with a file name.")
    return found


def is_zip(file: Upload) -> bool:
    """Whether the content is a zip file."""
    return file.content.startswith(_ZIP)


def unzipped(files: list[Upload], most: int, most_bytes: int) -> tuple[list[Upload], dict[str, int]]:
    """The files, each zip file replaced by the images in it; and kind of file → number of those skipped in zip files.

    most: limit on the images. most_bytes: limit on the bytes of all, unpacked. Raises Refusal, 400 or 413.
    """
    found: list[Upload] = []
    skipped: dict[str, int] = {}
    left = most_bytes
    entries = sum(file.content.count(_ENTRY) for file in files if is_zip(file))
    if entries > MAX_MEMBERS:  # before lists of entries take memory
        raise bad(f"the zip file has {entries} entries; expected at most {MAX_MEMBERS}, of all zip files together.")
    for file in files:
        inside = [file]
        if is_zip(file):
            inside = _members(file, most - len(found), left, skipped)
        found += inside
        left -= sum(len(one.content) for one in inside)
    if len(found) > most:
        raise bad(f"the request has {len(found)} images; expected at most {most}. Send fewer slices.")
    if not found:
        kinds = ", ".join(f"{count} {kind}" for kind, count in skipped.items())
        raise bad(f"the zip file has no image ({kinds or 'it is empty'}); expected the slices of one patient.")
    return found, skipped


def _members(file: Upload, most: int, left: int, skipped: dict[str, int]) -> list[Upload]:
    found: list[Upload] = []
    try:
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            for entry in archive.infolist():
                if entry.is_dir():
                    continue
                if entry.compress_type not in BOUNDED:
                    raise bad("the zip file uses another compression than deflate. Make it again with deflate.")
                if entry.flag_bits & 1:
                    raise bad("the zip file is encrypted. Send it decrypted.")
                if any(is_debris(part) for part in PurePosixPath(entry.filename).parts):
                    _count(skipped, "hidden or left behind by a system")
                    continue
                with archive.open(entry) as content:
                    head = content.read(HEAD)
                    other = kind_of_other(entry.filename, lambda head=head: head)  # type: ignore[misc]
                    if other is not None:
                        _count(skipped, other)
                        continue
                    if len(found) >= most:
                        raise bad(f"the zip file has more images than the {most} allowed. Send fewer slices.")
                    whole = head + content.read(max(0, left - len(head)) + 1)
                if len(whole) > left:
                    raise Refusal(413, "the zip file unpacks to more bytes than allowed. Send fewer slices.")
                left -= len(whole)
                found.append(Upload(entry.filename, whole))
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, ValueError, RuntimeError) as error:
        raise bad(f"the zip file cannot be read ({type(error).__name__}). Make it again.") from None
    except Exception as error:
        if isinstance(error, Refusal):
            raise
        # zlib.error, lzma.LZMAError and others of damaged members have no common base class.
        raise bad(f"the zip file is damaged ({type(error).__name__}). Make it again.") from None
    return found


def _count(skipped: dict[str, int], kind: str) -> None:
    skipped[kind] = skipped.get(kind, 0) + 1
