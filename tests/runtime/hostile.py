"""Bundles that a stranger may have made: version 0.1's, with one file exchanged and every digest computed again."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stageproof.runtime.serialization.digests import UNSEALED, seal

ROOT = Path(__file__).resolve().parents[2]
OLD = ROOT / "tests" / "data" / "bundle-0.1"
MIB, CPU_SECONDS = 512, 5
"""What one hostile file may cost beyond the engine: MiB of memory, and seconds of CPU, which a busy machine keeps."""

LOAD = """
import json, sys, time
import numpy, PIL.Image
ENGINE
# Not ru_maxrss, which starts with what the process that forked this one had.
peak = lambda: int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
before = peak()
from runtime import StageproofError, Predictor
begun = time.process_time()
try:
    Predictor(sys.argv[1], **json.loads(sys.argv[2]))
    said = "loaded"
except StageproofError as error:
    said = f"{type(error).__name__}: {error}"
print(json.dumps({"said": said, "mib": (peak() - before) / 1024, "cpu_seconds": time.process_time() - begun}))
"""


def copied(folder: Path) -> Path:
    """A bundle of one's own at `folder`."""
    shutil.copytree(OLD, folder)
    return folder


def rewritten(bundle: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The bundle with another manifest, sealed as an export seals it."""
    path = bundle / "manifest.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("sha256")
    change(data)
    path.write_text(seal(json.dumps({**data, "sha256": UNSEALED})), encoding="utf-8")
    return bundle


def exchanged(bundle: Path, name: str, content: bytes) -> Path:
    """The bundle with another file `name`, whose digest and size its manifest has."""
    (bundle / name).unlink()
    (bundle / name).write_bytes(content)

    def change(data: dict[str, Any]) -> None:
        for entry in (*data["artifacts"], *data["documents"], *data["golden"], data["guard"]):
            if entry["file"] == name:
                entry["sha256"] = hashlib.sha256(content).hexdigest()
                if "size_bytes" in entry:
                    entry["size_bytes"] = len(content)

    return rewritten(bundle, change)


def only(bundle: Path, *names: str) -> Path:
    """The bundle with no other artifacts than `names`."""

    def change(data: dict[str, Any]) -> None:
        gone = {entry["file"] for entry in data["artifacts"]} - set(names)
        data["artifacts"] = [entry for entry in data["artifacts"] if entry["file"] in names]
        if "model.xml" in gone:
            gone.add("model.bin")
            data["documents"] = [entry for entry in data["documents"] if entry["file"] != "model.bin"]
        for name in gone:
            (bundle / name).unlink()

    return rewritten(bundle, change)


def archive(source: Path, changed: Mapping[str, bytes | None], compress: bool = False) -> bytes:
    """The zip archive at `source` with other entries: name below its folder → content; None removes one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(buffer, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        entries = {name.removeprefix(f"{root}/"): old.read(name) for name in old.namelist()}
        for name, content in {**entries, **changed}.items():
            if content is not None:
                kind = zipfile.ZIP_DEFLATED if compress and name in changed else zipfile.ZIP_STORED
                new.writestr(f"{root}/{name}", content, kind)
    return buffer.getvalue()


def load_apart(bundle: Path, engine: str, **options: Any) -> dict[str, Any]:
    """What loading it in a fresh process says, the MiB it took at most beyond the engine, and the seconds of CPU."""
    code = LOAD.replace("ENGINE", f"import {engine}" if engine else "")
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle), json.dumps({"guard": False, "threads": 1, **options})],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
