"""Audit, train, evaluate, export, predict: without a network, on a read-only checkout, as another user, without HOME.

A name that is planted in every place where a patient's may be is in nothing that travels.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.dicoms import dataset

ROOT = Path(__file__).resolve().parents[1]
NAME = "Zyxwvutsson"
LOCAL = {
    *("groups.csv", "names.json", "split.csv", "unreadable.json", "run.json", "predictions.csv", "bundle.names.json"),
    *("answers.csv", ".elsewhere"),
}
"""Files that may name an image, by design (docs/SECURITY.md)."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def slices(root: Path) -> None:
    """Class folders of phantom slices, below and with the planted name, as PNG and DICOM files; and their groups."""
    from stageproof.runtime.labels import LABELS
    from stageproof.train.data.phantom.__main__ import phantom_samples

    samples = phantom_samples(patients=24, slices=6, size=64, seed=3)
    rows = ["file,patient"]
    for index in range(len(samples)):
        label, person = LABELS[samples.labels[index]], int(samples.groups[index])
        file = root / label / f"{NAME}_{person:03d}_s{index:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        content = samples.read(index)
        if index % 50 == 0:
            file = file.with_suffix(".dcm")
            pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L")).astype(np.uint16)
            names = {
                "PatientName": f"{NAME}^Anna",
                "PatientID": NAME,
                "OtherPatientNames": NAME,
                "StudyDescription": NAME,
            }
            dataset(pixels, **names).save_as(file, enforce_file_format=True)
        else:
            file.write_bytes(content)
        rows.append(f"{label}/{file.name},{NAME}-{person}")
    (root / "groups.csv").write_text("\n".join(rows) + "\n")
    (root / next(iter(LABELS)) / f"{NAME}_broken.png").write_bytes(b"not an image")
    with (root / "groups.csv").open("a") as file:
        file.write(f"{next(iter(LABELS))}/{NAME}_broken.png,{NAME}-x\n")


def confined(script: str, spare: Path) -> list[str]:
    """A command that runs the shell script without a network and with the checkout read-only, as another user where
    this one is root. Skips where the system does not permit it. spare: an empty folder."""
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        pytest.skip("needs Linux's unshare")
    root = os.geteuid() == 0
    mounts = [f"mount --bind '{ROOT}' '{ROOT}'", f"mount -o remount,ro,bind '{ROOT}'"]
    python = Path(sys.base_prefix).resolve()
    closed = [above for above in reversed(python.parents) if not above.stat().st_mode & 0o001]
    if root and closed:  # Python lies in root's home: another user gets a view with nothing else of it
        inside = closed[0] / python.relative_to(closed[0]).parts[0]
        mounts = [
            *(f"mount --bind '{inside}' '{spare}'", f"mount -t tmpfs -o mode=755 none '{closed[0]}'"),
            *(f"mkdir '{inside}'", f"mount --bind '{spare}' '{inside}'", *mounts),
        ]
    as_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"] if root else []
    flags = ["-nm"] if root else ["-rnm"]
    probe = f"{' && '.join(mounts)} && exec {' '.join(as_user)} '{sys.executable}' -c 'import torch'"
    done = subprocess.run(["unshare", *flags, "sh", "-c", probe], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"unshare is not permitted here: {done.stderr.strip()}")
    inner = " ".join([*as_user, "sh -e -c"])
    return ["unshare", *flags, "sh", "-c", f'{" && ".join(mounts)} && exec {inner} "$1"', "sh", script]


@pytest.fixture(scope="module")
def everything() -> Iterator[Path]:
    """A folder in which all commands have run; `said` is what they printed.

    Not in pytest's own folder: every session that starts closes that to other users.
    """
    base = Path(tempfile.mkdtemp(prefix="everything-"))
    base.chmod(0o755)
    try:
        yield _run_everything(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _run_everything(base: Path) -> Path:
    place = base / NAME
    slices(place / "slices")
    for folder in ("tmp", "work"):
        (place / folder).mkdir()
    run = [sys.executable, "-P", "-W", "ignore::DeprecationWarning", "-m"]
    data = ["--data", "../slices/../slices", "--groups", "../slices/groups.csv"]
    train = [
        "--image-size",
        "32",
        "--batch-size",
        "8",
        "--head.epochs",
        "1",
        "--full.epochs",
        "1",
        "--precision",
        "fp32",
    ]
    image = f"../slices/NonDemented/{next((place / 'slices' / 'NonDemented').glob('*.dcm')).name}"
    other = f"../slices/NonDemented/{next((place / 'slices' / 'NonDemented').glob('*_s*.png')).name}"
    commands = [
        ["train.audit", *data, "--out", "audit"],
        ["train", *data, *train, "--device", "cpu", "--out", "run"],
        ["train.evaluate", "run"],
        [
            "export",
            "run",
            "--to",
            "onnx",
            "torchscript",
            "torch-export",
            "--parity-images",
            "64",
            "--flip-tolerance",
            "0.3",
        ],
        ["runtime", "--bundle", "bundle", "--audit", "audit.log", "--output", "answers.csv", image, other],
        ["runtime", "--bundle", "bundle", image, f"../slices/NonDemented/{NAME}_broken.png"],
    ]
    lines = [shlex.join([*run, *command]) for command in commands]
    lines[-2:] = [f"{line} || test $? = 1" for line in lines[-2:]]  # 1: an image was rejected
    script = "\n".join(["set -e", 'test -z "$HOME"', *lines])
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "TMPDIR": str(place / "tmp"),
        "USER": "nobody",
    }
    (spare := base / "python").mkdir()
    if os.geteuid() == 0:
        for path in (place, *place.rglob("*")):
            os.chown(path, 65534, 65534)
    done = subprocess.run(
        confined(script, spare), cwd=place / "work", env=environment, text=True, capture_output=True, timeout=2700
    )
    (base / "said").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return place


def test_everything_runs_without_network_home_and_a_writable_checkout(everything):
    work = everything / "work"
    assert (work / "bundle" / "manifest.json").is_file()
    assert (work / "run" / "evaluation" / "report.html").is_file()
    assert len((work / "answers.csv").read_text().splitlines()) == 3


def test_nothing_is_left_in_the_temporary_folder(everything):
    assert [path.name for path in (everything / "tmp").rglob("*") if path.is_file()] == []


def test_the_planted_name_is_in_nothing_that_travels(everything):
    found = {}
    for file in sorted((everything / "work").rglob("*")):
        if file.is_file() and file.name not in LOCAL and (where := planted(file)):
            found[str(file.relative_to(everything))] = where
    assert found == {}
    assert NAME.encode() in (everything / "work" / "run" / "split.csv").read_bytes()  # the search can find it
    for file in (everything / "work" / "bundle").rglob("*"):
        assert file.name not in LOCAL


def test_what_may_hold_it_is_private(everything):
    work = everything / "work"
    loose = {}
    for path in work.rglob("*"):
        if not path.is_relative_to(work / "bundle"):
            mode = path.stat().st_mode & 0o777
            if mode & 0o077:
                loose[str(path.relative_to(work))] = oct(mode)
    assert loose == {}
    assert (work / "bundle" / "manifest.json").stat().st_mode & 0o777 == 0o644


def planted(file: Path) -> list[str]:
    """Where in the file the name is: in its name, its bytes, or what it holds compressed."""
    where = [file.name] if NAME.lower() in file.name.lower() else []
    content = file.read_bytes()
    where += [name for name, part in parts(file, content) if has(part)]
    return where


def parts(file: Path, content: bytes) -> Iterator[tuple[str, bytes]]:
    """(what it is called, its bytes) of the file and of all that is in it."""
    yield "itself", content
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                yield name, name.encode() + b"\0" + archive.read(name)
    if content.startswith(b"\x89PNG"):
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            yield "text", repr(image.info).encode()
    if content[:2] in (b"\x1f\x8b", b"\x78\x9c"):
        yield "inflated", zlib.decompressobj(47).decompress(content)


def has(content: bytes) -> bool:
    folded = content.lower()
    return any(NAME.lower().encode(code) in folded for code in ("utf-8", "utf-16-le", "utf-32-le"))
