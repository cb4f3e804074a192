"""Which files of a folder are images' candidates, and which a system left behind."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stageproof.runtime.images.debris import files_below, is_debris
from stageproof.runtime.images.folders import images_in


def plant(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


HIDDEN = ["._s0.jpg", ".DS_Store", ".hidden"]
WINDOWS = ["Thumbs.db", "THUMBS.DB", "Thumbs.db:encryptable", "ehthumbs.db", "desktop.ini", "Desktop.ini"]
FOLDERS = ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "Icon\r"]


@pytest.mark.parametrize("name", [*HIDDEN, *WINDOWS, *FOLDERS])
def test_debris(name: str) -> None:
    assert is_debris(name)


@pytest.mark.parametrize("name", ["s0.jpg", "MACOSX", "1.2.840.113619.2", "thumbs", "desktop.png", "_x.png", "README"])
def test_what_is_none(name: str) -> None:
    assert not is_debris(name)


def test_every_kind_is_left_out_and_counted(tmp_path: Path) -> None:
    plant(tmp_path, "b.png", "a/c.png", "a/1.2.3", "__MACOSX/._b.png", "__MACOSX/a/._c.png", "a/._c.png", ".DS_Store")
    plant(tmp_path, "Thumbs.db", "a/desktop.ini", ".git/objects/x", "@eaDir/b.png/SYNO_THUMB.jpg")
    found = files_below(tmp_path)
    assert found.files == [tmp_path / "a/1.2.3", tmp_path / "a/c.png", tmp_path / "b.png"]
    assert found.debris == 8
    assert found.links == []


def test_a_folder_that_cannot_be_read_is_counted(tmp_path: Path, monkeypatch) -> None:
    plant(tmp_path, "a/b.png", "closed/c.png")
    scandir = os.scandir

    def refused(path):  # tests may run as root, for whom every folder can be read
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    assert files_below(tmp_path).unreadable == [tmp_path / "closed"]
    assert images_in(tmp_path).skipped == {"folders that cannot be read": 1}


def test_a_hidden_root_is_read(tmp_path: Path) -> None:
    plant(tmp_path, ".data/a.png", ".data/.x/b.png")
    assert files_below(tmp_path / ".data").files == [tmp_path / ".data/a.png"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    inside, outside = tmp_path / "root", tmp_path / "elsewhere"
    plant(tmp_path, "root/real/a.png", "elsewhere/b.png", "elsewhere/deep/c.png")
    (inside / "again").symlink_to(inside / "real")
    (inside / "linked").symlink_to(outside)
    (inside / "second").symlink_to(outside)
    (outside / "up").symlink_to(tmp_path)  # a circle
    (inside / "loop").symlink_to(inside)
    (inside / "broken").symlink_to(tmp_path / "nowhere")
    (inside / "one.png").symlink_to(outside / "b.png")
    found = files_below(inside)
    names = [path.relative_to(inside).as_posix() for path in found.files]
    assert names[:4] == ["linked/b.png", "linked/deep/c.png", "one.png", "real/a.png"]
    assert len({path.resolve() for path in found.files}) == 3
    assert {path.name for path in found.links} >= {"again", "broken", "loop"}


def test_an_empty_and_a_missing_folder(tmp_path: Path) -> None:
    assert files_below(tmp_path).files == []
    assert files_below(tmp_path / "none").files == []
