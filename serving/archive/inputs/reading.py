"""`Reader`: the bytes of inputs, and whether they changed since they were listed."""

from __future__ import annotations

import os
import zipfile
import zlib
from types import TracebackType
from typing import BinaryIO

from stageproof.runtime.headers.limits import MAX_FILE_BYTES
from stageproof.runtime.system.regular_files import NotARegularFileError, open_regular
from stageproof.serving.archive.inputs import containers, urls
from stageproof.serving.archive.inputs.entry import Entry, is_url, local


class UnreadableError(Exception):
    """An input cannot be read. The text is the row's reason and does not name the file."""


class Reader:
    """Reads the inputs of a shard; keeps the last container open."""

    def __init__(self, folder: str) -> None:
        """folder: absolute, the working folder in which the inputs were listed."""
        self._folder = folder
        self._path = ""
        self._file: BinaryIO | None = None
        self._zip: zipfile.ZipFile | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def read(self, entry: Entry) -> bytes:
        """The content, up to one byte more than the limit for files. Raises UnreadableError."""
        try:
            if entry.member is None:
                with self._opened(entry.path) as file:
                    return file.read(MAX_FILE_BYTES + 1)
            file = self._container(entry.path)
            return containers.read_zip(self._zip, entry) if self._zip else containers.read_tar(file, entry)
        except FileNotFoundError as error:
            raise UnreadableError("the file does not exist any more, or not on this machine") from error
        except PermissionError as error:
            raise UnreadableError("the file may not be read by this user") from error
        except NotARegularFileError as error:
            raise UnreadableError("it is not a regular file") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, NotImplementedError) as error:
            raise UnreadableError(f"the zip member cannot be read ({type(error).__name__})") from error
        except OSError as error:
            raise UnreadableError(f"the file cannot be read ({error.strerror or error})") from error
        except Exception as error:  # each protocol of fsspec raises exceptions of its own while reading
            if not is_url(entry.path):
                raise
            raise UnreadableError(f"the address cannot be read ({type(error).__name__})") from error

    def _opened(self, path: str) -> BinaryIO:
        return urls.opened(path) if is_url(path) else open_regular(local(path, self._folder))

    def _container(self, path: str) -> BinaryIO:
        if self._file is None or self._path != path:
            self._close()
            file = self._opened(path)
            self._file, self._path = file, path
            self._zip = zipfile.ZipFile(file) if path.lower().endswith(".zip") else None
        return self._file

    def _close(self) -> None:
        for one in (self._zip, self._file):
            if one is not None:
                one.close()
        self._zip = self._file = None


def changed(entry: Entry, folder: str) -> bool:
    """Whether a local file has another size or modification time than when it was listed, or is gone. False for URLs,
    which have no time that all protocols know."""
    if is_url(entry.path):
        return False
    try:
        status = os.stat(local(entry.path, folder))  # noqa: PTH116
    except OSError:
        return entry.modified is not None
    if status.st_mtime_ns != entry.modified:
        return True
    return entry.member is None and status.st_size != entry.size
