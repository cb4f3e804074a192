"""The bundle is the old one or the new one at every moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stageproof.export.bundle.writer import adopt, reject, staged
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError, ExportError

ROOT = Path(__file__).parents[2]

SWAP_FOREVER = """
import sys
from pathlib import Path
from export.bundle import link, staged
old, target = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
while True:
    with staged(target) as folder:
        for path in sorted(old.rglob("*")):
            if path.is_file():
                link(path, folder / path.relative_to(old))
        (folder / "logs" / "again.log").write_text("a newer one")
"""


def test_killed_at_any_moment_it_leaves_a_whole_bundle(small_bundle, tmp_path):
    """Ten kills of a process that does nothing but replace the bundle."""
    target = tmp_path / "bundle"
    shutil.copytree(small_bundle, target)
    digest = read_manifest(small_bundle).model.digest
    rng = random.Random(0)
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", SWAP_FOREVER, str(small_bundle), str(target)], cwd=ROOT, stdout=subprocess.PIPE
        )
        with process:
            assert process.stdout.readline() == b"ready\n"
            time.sleep(rng.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        assert verified(target).model.digest == digest


@pytest.mark.slow
def test_a_killed_export_leaves_the_old_bundle_or_the_new_one(firm_bundle, run, tmp_path):
    target = tmp_path / "bundle"
    shutil.copytree(firm_bundle, target)
    rng = random.Random(1)
    allowed = [{"model.onnx"}, {"model.onnx", "model.pt2"}]
    for _ in range(6):
        command = [sys.executable, "-m", "export", str(run), "--to", "torch-export", "--out", str(target)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            time.sleep(rng.uniform(1, 20))
            process.kill()
        assert {artifact.file for artifact in verified(target).artifacts} in allowed


@pytest.mark.slow
@pytest.mark.parametrize("limit_mb", [0.05, 20], ids=["the images", "the model"])
def test_no_room_for_what_is_written_is_one_clear_line_and_the_old_bundle_stands(firm_bundle, run, tmp_path, limit_mb):
    """The system itself refuses to write more: a limit on the size of files."""
    target = tmp_path / "bundle"
    shutil.copytree(firm_bundle, target)
    before = verified(target)
    limit = int(limit_mb * 1e6)
    code = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
    code += "runpy.run_module('export', run_name='__main__')"
    command = [sys.executable, "-c", code, str(run), "--to", "torch-export", "--out", str(target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "could not be written: " in done.stderr.splitlines()[-1]
    assert verified(target).artifacts == before.artifacts
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def write_half(target: Path, error: Exception) -> None:
    with staged(target) as folder:
        (folder / "half").write_text("written")
        raise error


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "bundle", ZeroDivisionError())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_clear_line_and_the_old_bundle_stands(small_bundle, tmp_path):
    target = tmp_path / "bundle"
    shutil.copytree(small_bundle, target)
    with pytest.raises(ExportError, match=r"No space left on device.*The old bundle, if any, is unchanged"):
        write_half(target, OSError(28, os.strerror(28)))
    assert verified(target) == read_manifest(small_bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_that_was_changed_is_not_taken_over(small_bundle, tmp_path):
    target = tmp_path / "bundle"
    shutil.copytree(small_bundle, target)
    (target / "model.onnx").write_bytes(b"changed")
    model = read_manifest(target).model
    with pytest.raises(BundleError, match=r"model.onnx has SHA-256 .* the file was changed after export"):
        adopt(target, model, tmp_path / "folder", set())


def test_artifacts_of_another_temperature_are_not_taken_over(small_bundle, tmp_path):
    model = read_manifest(small_bundle).model
    assert adopt(small_bundle, model, tmp_path / "same", set())[0]
    assert adopt(small_bundle, replace(model, temperature=1.5), tmp_path / "other", set()) == ([], [], {})


def test_what_is_rejected_takes_its_sidecar_along(tmp_path):
    for name in ("model.fp16.xml", "model.fp16.bin", "model.xml", "model.bin", "model.ts"):
        (tmp_path / name).write_text(name)
    reject(tmp_path, "model.fp16.xml", "why")
    assert sorted(path.name for path in (tmp_path / "rejected").iterdir()) == [
        "model.fp16.bin.rejected",
        "model.fp16.xml.json",
        "model.fp16.xml.rejected",
    ]
    reject(tmp_path, "model.ts", "why")
    assert (tmp_path / "rejected" / "model.ts.rejected").read_text() == "model.ts"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml", "rejected"], "not its sidecar"
    reject(tmp_path, "model.xml", None)
    assert [path.name for path in tmp_path.iterdir()] == ["rejected"]
