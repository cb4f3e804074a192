"""Several files put in place together, with every system call failing once, and with the process killed at each."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stageproof.train.runs.atomic_moves import Move, flush, put


class Fails:
    """Lets `count` calls that change a name through; the next one raises, and with `killed` all after it too."""

    def __init__(self, monkeypatch, count: int, killed: bool = False) -> None:
        self.left, self.killed = count, killed
        for name in ("rename", "replace", "unlink"):
            monkeypatch.setattr(Path, name, self._counting(getattr(Path, name)))

    def _counting(self, real):
        def call(*arguments, **options):
            self.left -= 1
            if self.left == -1 or (self.killed and self.left < 0):
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return call


def content(folder: Path) -> dict[str, str]:
    """Visible files below `folder`, by their path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    names = ((path.relative_to(folder), path) for path in files)
    return {str(name): path.read_text() for name, path in names if not name.parts[0].startswith(".")}


@pytest.fixture
def moves(tmp_path) -> list[Move]:
    """Replaces a file and a folder, takes a file away, adds a file and a folder."""
    (tmp_path / "place" / "folder").mkdir(parents=True)
    for name in ("file", "gone", "folder/inner"):
        (tmp_path / "place" / name).write_text(f"old {name}")
    new, old = tmp_path / "place" / ".new", tmp_path / "place" / ".old"
    for place in (old, new / "folder", new / "fresh"):
        place.mkdir(parents=True)
    for name in ("file", "added", "folder/inner", "fresh/inner"):
        (new / name).write_text(f"new {name}")
    names = ("gone", "folder", "file", "added", "fresh")
    return [Move(None if n == "gone" else new / n, tmp_path / "place" / n, old / n) for n in names]


AFTER = {name: f"new {name}" for name in ("added", "file", "folder/inner", "fresh/inner")}


def test_all_are_in_place_and_what_they_replaced_is_kept(moves, tmp_path):
    before = content(tmp_path / "place")
    flush(tmp_path / "place" / ".new")
    put(moves)
    assert content(tmp_path / "place") == AFTER
    assert content(tmp_path / "place" / ".old") == before


@pytest.mark.parametrize("count", range(6))
def test_after_an_error_at_any_step_all_are_as_before(moves, tmp_path, monkeypatch, count):
    before = content(tmp_path / "place")
    Fails(monkeypatch, count)
    with pytest.raises(OSError, match="No space left"):
        put(moves)
    assert content(tmp_path / "place") == before


def test_the_steps_are_no_more_than_those(moves, tmp_path, monkeypatch):
    Fails(monkeypatch, 6)
    put(moves)
    assert content(tmp_path / "place") == AFTER


@pytest.mark.parametrize("count", range(6))
def test_killed_at_any_step_a_file_is_the_old_or_the_new_one(moves, tmp_path, monkeypatch, count):
    before = content(tmp_path / "place")
    with monkeypatch.context() as patched:
        Fails(patched, count, killed=True)
        with pytest.raises(OSError, match="No space left"):
            put(moves)
    found = content(tmp_path / "place")
    assert found["file"] in (before["file"], AFTER["file"])
    assert set(found.values()) <= set(before.values()) | set(AFTER.values())
    assert before.keys() - found.keys() <= {"gone", "folder/inner"}


def test_without_hard_links_what_is_replaced_is_copied(moves, tmp_path, monkeypatch):
    def none(*arguments):
        raise OSError(1, "Operation not permitted")

    before = content(tmp_path / "place")
    monkeypatch.setattr(os, "link", none)
    put(moves)
    assert content(tmp_path / "place") == AFTER
    assert content(tmp_path / "place" / ".old") == before
