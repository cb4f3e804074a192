"""Devices, FIFOs, sockets and folders are refused where a file is expected, and nothing waits for them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from stageproof.runtime.audit.chain import read_key
from stageproof.runtime.audit.log import AuditLog
from stageproof.runtime.cli.csv_file import read_existing
from stageproof.runtime.errors import AuditError, CheckpointError, DatasetError, InputError
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.system.regular_files import NotARegularFileError, TooLargeError, open_regular, read_regular

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs POSIX file kinds")


@pytest.fixture(params=["fifo", "socket", "device", "folder", "link"])
def odd(request, tmp_path, monkeypatch):
    """A path that is no regular file."""
    path = tmp_path / "odd"
    if request.param == "device":
        return Path("/dev/zero")
    if request.param == "folder":
        path.mkdir()
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)  # the path of a socket may have 108 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("odd")
        return path
    else:
        os.mkfifo(path)
    if request.param == "link":
        (tmp_path / "link").symlink_to(path)
        return tmp_path / "link"
    return path


@pytest.mark.timeout(60)
def test_only_regular_files_are_opened(odd):
    with pytest.raises(NotARegularFileError, match="expected a regular file"):
        open_regular(odd)


@pytest.mark.timeout(60)
def test_every_reader_of_a_named_file_refuses_it(odd, tmp_path):
    from stageproof.train.data.tables import read_table
    from stageproof.train.foreign.file_types import refuse_stranger
    from stageproof.train.foreign.side_files import beside
    from stageproof.train.foreign.weight_files import read_weights
    from stageproof.train.runs.record import read_record

    with pytest.raises(OSError, match="expected a regular file"):
        sha256_file(odd)
    with pytest.raises(AuditError):
        read_key(odd)
    with pytest.raises(AuditError):
        AuditLog(odd)
    with pytest.raises(InputError):
        read_existing(odd, resume=True)
    with pytest.raises(DatasetError):
        read_table(odd, "groups")
    with pytest.raises(CheckpointError):
        read_weights(odd)
    with pytest.raises(OSError, match="expected a regular file"):
        refuse_stranger(odd)
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").symlink_to(odd)
    with pytest.raises(CheckpointError):
        read_record(run)
    (run / "labels.json").symlink_to(odd)
    beside(run / "x.pth")


def test_a_limit_is_of_what_is_read(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 11)
    assert read_regular(path, 11) == b"x" * 11
    with pytest.raises(TooLargeError, match="it has more than 10 bytes"):
        read_regular(path, 10)
