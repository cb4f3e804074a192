"""An archive of phantoms, and its output."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from stageproof.serving.archive.engines import ENGINES
from stageproof.serving.archive.output.plan import Plan
from stageproof.serving.archive.run import Request, score

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = ROOT / "tests" / "data" / "bundle-0.1"


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """24 images in two folders, a file that is none, one that is broken, and hidden ones. Do not change it: copy it."""
    from PIL import Image

    from stageproof.train.data.phantom.__main__ import draw_slice

    root = tmp_path_factory.mktemp("archive")
    for person in range(6):
        folder = root / f"doe-john-{person}" / "anat"
        folder.mkdir(parents=True)
        for at in range(4):
            image = Image.fromarray(draw_slice(person % 4, 500 + person, 0.3 + at / 10, seed=7)).resize((48, 48))
            image.save(folder / f"slice{at}.png")
    (root / "doe-john-0" / "notes.txt").write_text("no image")
    (root / "doe-john-0" / ".hidden.png").write_bytes(b"")
    (root / "doe-john-3" / "anat" / "slice2.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return root


@pytest.fixture(scope="session")
def key(tmp_path_factory) -> Path:
    """A key file."""
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text("k" * 40)
    return path


@pytest.fixture(autouse=True)
def inline(monkeypatch) -> None:
    """Adds the engine of `tests.serving.inline`."""
    monkeypatch.setitem(ENGINES, "inline", "tests.serving.inline:Inline")


@pytest.fixture
def request_for(archive, key, tmp_path):
    """`request_for(**changes)`: a request for the archive in `tmp_path / "out"`, in shards of 7."""

    def made(**changes) -> Request:
        given = {
            "bundle": BUNDLE,
            "inputs": [str(archive)],
            "out": tmp_path / "out",
            "engine": "inline",
            "shard_images": 7,
            "key": key,
            "backend": "onnx",
        }
        return Request(**{**given, **changes})

    return made


@pytest.fixture(scope="session")
def finished(archive, key, tmp_path_factory) -> Path:
    """A finished output of `request_for()`. Do not change it: take `scored`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "inline", "tests.serving.inline:Inline")
        out = tmp_path_factory.mktemp("finished") / "out"
        score(Request(BUNDLE, [str(archive)], out, engine="inline", shard_images=7, key=key, backend="onnx"))
    return out


@pytest.fixture
def scored(finished, tmp_path) -> Plan:
    """The plan of a copy of it, which `request_for()` continues."""
    shutil.copytree(finished, tmp_path / "out")
    return Plan.read(tmp_path / "out")
