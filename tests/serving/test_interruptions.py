"""Runners and workers that are killed: every input still has exactly one row, the bytes are those of a quiet run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.serving.archive.output.plan import Plan
from stageproof.serving.archive.verification import verify
from tests.serving.conftest import BUNDLE, ROOT
from tests.serving.test_score import bytes_of

IMAGES = int(os.environ.get("STAGEPROOF_ARCHIVE_IMAGES", "5000"))
KILLS = int(os.environ.get("STAGEPROOF_ARCHIVE_KILLS", "30"))


def command(out: Path, inputs: Path, key: Path, *more: str) -> list[str]:
    words = ["-m", "serving.archive", str(BUNDLE), "--in", str(inputs), "--out", str(out), "--backend", "onnx"]
    return [sys.executable, *words, "--key", str(key), *more]


def started(words: list[str], errors: Path) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with errors.open("ab") as file:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)


def children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(one) for one in path.read_text().split()] if path.exists() else []


def workers(pid: int) -> list[int]:
    """Processes that `multiprocessing` started for the runner, without its resource tracker."""
    found = []
    for child in children(pid):
        try:
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
        except OSError:
            continue
    return found


def test_the_command_scores_verifies_and_reports(archive, finished, key, tmp_path):
    done = subprocess.run(
        command(tmp_path / "out", archive, key, "--workers", "1", "--threads", "1", "--shard-images", "7", "--report"),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "24 of 24 inputs" in done.stdout
    assert "skipped 2 files" in done.stderr
    assert "24 of 24 inputs have a row" in (tmp_path / "out" / "report.html").read_text()
    assert verify(Plan.read(tmp_path / "out"), reread=True).complete
    assert bytes_of(tmp_path / "out") == bytes_of(finished)  # of another engine


@pytest.mark.slow
def test_runners_that_start_together_do_not_disturb_each_other(archive, finished, key, tmp_path):
    out, options = tmp_path / "out", ("--workers", "1", "--threads", "1", "--shard-images", "7")
    runners = [started(command(out, archive, key, *options), tmp_path / "errors") for _ in range(3)]
    statuses = sorted(runner.wait() for runner in runners)
    errors = (tmp_path / "errors").read_text()
    assert statuses[0] == 0, errors
    assert set(statuses) <= {0, 2}
    assert errors.count("another process is scoring into") == statuses.count(2)
    assert verify(Plan.read(out)).complete
    assert bytes_of(out) == bytes_of(finished)


@pytest.mark.slow
def test_killed_at_random_moments(key, tmp_path):
    """`KILLS` times kill -9 of the runner, of a worker, or of all of them, over `IMAGES` images in shards of 100."""
    inputs, out, quiet = tmp_path / "in", tmp_path / "out", tmp_path / "quiet"
    draw = np.random.default_rng(3)
    for folder in range(IMAGES // 500):
        (inputs / f"{folder:04d}").mkdir(parents=True)
        for at in range(500):
            rows, columns = np.mgrid[:32, :32]
            picture = 90 + 60 * np.cos(rows * draw.uniform(0.1, 0.5) + columns * draw.uniform(0.1, 0.5))
            Image.fromarray(picture.astype(np.uint8)).save(inputs / f"{folder:04d}" / f"{at:03d}.png")
    errors = tmp_path / "errors"
    options = ("--workers", "2", "--threads", "1", "--shard-images", "100")
    begun = time.monotonic()
    assert started(command(quiet, inputs, key, *options), errors).wait() == 0
    whole = time.monotonic() - begun
    expected = bytes_of(quiet)
    chance = random.Random(5)
    longest = max(6 * whole / KILLS, 10.0)  # s; about three runs in all
    kills: dict[str, int] = {}
    finished = 0
    while sum(kills.values()) < KILLS:
        runner = started(command(out, inputs, key, *options), errors)
        wait = chance.uniform(0, longest)
        try:
            runner.wait(wait)
        except subprocess.TimeoutExpired:
            victim = chance.choice(["runner", "worker", "all"])
            if victim == "worker":
                found = workers(runner.pid)
                if not found:
                    victim = "runner"
                else:
                    os.kill(chance.choice(found), signal.SIGKILL)
                    runner.wait()  # which goes on without it
            if victim == "runner":
                runner.kill()
            elif victim == "all":
                os.killpg(runner.pid, signal.SIGKILL)
            runner.wait()
            kills[victim] = kills.get(victim, 0) + 1
        if runner.returncode == 0:
            finished += 1
            assert bytes_of(out) == expected
            shutil.rmtree(out)  # so that the next kills meet the beginning too
    status = started(command(out, inputs, key, *options), errors).wait()
    assert status == 0, errors.read_text()
    found = verify(Plan.read(out), reread=True)
    assert (found.complete, found.rows) == (True, IMAGES)
    assert bytes_of(out) == expected
    left = [path for path in out.rglob("*") if path.name.startswith(".")]
    assert left == []
    print(f"kills {kills}, finished {finished} times besides, one quiet run {whole:.1f} s")  # noqa: T201


_DISKS = """
set -e
mount -t tmpfs -o size=100k none "$1/disk"
here="$1"; shift
run() { "$@" 2>> "$here/errors" && echo 0 || echo $?; }
run "$@" > "$here/full"
ls "$here/disk/out/parts" | wc -l > "$here/parts"
mount -o remount,size=9m "$here/disk"
run "$@" > "$here/larger"
cp -r "$here/disk/out" "$here/kept"
mount -o remount,ro "$here/disk"
run "$@" > "$here/read-only"
"""


def may_mount() -> bool:
    words = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_disk_that_is_full_and_one_that_is_read_only(archive, finished, key, tmp_path):
    """A file system of 100 kB in a mount namespace of its own."""
    if not may_mount():
        pytest.skip("this user may not mount a file system of its own (unshare --mount)")
    (tmp_path / "disk").mkdir()
    words = command(tmp_path / "disk" / "out", archive, key, "--shard-images", "2", "--workers", "1")
    script = ["unshare", "--mount", "bash", "-c", _DISKS, "disks", str(tmp_path), *words]
    subprocess.run(script, cwd=ROOT, check=True)
    said = {name: (tmp_path / name).read_text().split() for name in ("full", "larger", "read-only", "parts")}
    errors = (tmp_path / "errors").read_text()
    assert (said["full"][-1], said["larger"][-1], said["read-only"][-1]) == ("1", "0", "1"), errors
    assert 0 < int(said["parts"][0]) < 12
    assert "cannot be written: No space left on device. Finished parts are kept." in errors
    assert "out cannot be written: Read-only file system" in errors
    assert verify(Plan.read(tmp_path / "kept"), reread=True).complete
