"""Work folders are private, vanish, and are removed later where their process was killed; nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.runtime.system.work_folders import MARKER, hold, release, sweep, work_folder

KILLED = """
import os, signal, sys
from pathlib import Path
from runtime.system.work_folders import work_folder
with work_folder(Path(sys.argv[1]), ".b.partial-") as folder:
    (folder / "pixels").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_private_and_vanishes(tmp_path):
    with work_folder(tmp_path, "x-") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "inside").write_text("x")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError), work_folder(tmp_path, "x-"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_at_the_next_start_and_nothing_else(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    (left,) = tmp_path.iterdir()
    assert (left / "pixels").exists()
    foreign = tmp_path / ".b.partial-mine"  # named alike, but no work folder
    foreign.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / MARKER).touch()
    (tmp_path / ".b.partial-link").symlink_to(target)
    (tmp_path / ".b.partial-file").touch()
    with work_folder(tmp_path, ".b.partial-") as folder:
        assert not left.exists()
        with work_folder(tmp_path, ".b.partial-") as other:  # a second one does not remove the first
            assert folder.exists()
        assert not other.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".b.partial-file", ".b.partial-link", ".b.partial-mine", "target")
    ]
    assert (target / MARKER).exists()


def test_what_is_spared_stays(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    release(hold(folder))
    assert sweep(tmp_path, "*", spare=lambda folder: True) == []
    assert sweep(tmp_path, "*") == [folder]
    assert not folder.exists()


def test_a_folder_of_another_user_stays(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    folder.mkdir()
    release(hold(folder))
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert sweep(tmp_path, "*") == []
    assert folder.exists()
