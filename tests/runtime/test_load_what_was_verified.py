"""The bytes that were verified are those that an engine is given: whoever changes a file in between wins nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stageproof.runtime import BundleError, Predictor, backends, preprocess, read_image
from stageproof.runtime.backends import networks
from stageproof.runtime.inference.engine_settings import MODES, OptimizeFor
from tests import tiny
from tests.runtime.hostile import OLD, ROOT, copied

ENGINES = [name for name in ("onnx", "openvino", "pytorch") if name in backends.available()]
SERVED = [*ENGINES, *(name for name in ("torchscript", "torch-export") if name in backends.available())]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copied(tmp_path / "bundle")


@pytest.fixture(autouse=True)
def tiny_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network of these bundles, as the backend of `.safetensors` has to know it."""
    monkeypatch.setitem(networks._SHAPES, tiny.NAME, networks._Shape("conv1", (), (), ""))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return preprocess(read_image(OLD / "golden" / "00.png"), Predictor(OLD, backend=ENGINES[0]).model.input)[None]


def destroy(bundle: Path) -> None:
    """Every file, also its content under other names, is nonsense from now on."""
    for path in sorted(bundle.rglob("*")):
        if path.is_file():
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
            path.unlink()
            path.write_bytes(b"nonsense")


def loader_of(predictor: Predictor) -> Callable[[], backends.Backend]:
    """Loads the artifact from bytes that are read and verified again, as Grad-CAM has them."""

    def load() -> backends.Backend:
        reread = predictor._serving.reread
        assert reread is not None
        return backends.load(
            predictor.backend, reread(), precision=predictor.precision, device="cpu", threads=1, trust_code=True
        )

    return load


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", SERVED)
def test_at_the_worst_moment_every_file_is_another_one(
    bundle: Path, backend: str, mode: OptimizeFor, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"backend": backend, "threads": 2, "optimize_for": mode, "trust_code": True}
    expected = Predictor(OLD, guard=False, **options).logits(image)
    module, seen = backends.BACKENDS[backend], []
    real = module.load

    def load(*args: Any, **settings: Any) -> backends.Backend:
        if not seen:
            destroy(bundle)
        seen.append(args)
        engine: backends.Backend = real(*args, **settings)
        return engine

    monkeypatch.setattr(module, "load", load)
    predictor = Predictor(bundle, **options)  # its guard too
    assert np.array_equal(predictor.logits(image), expected)
    assert predictor.guarded
    with pytest.raises(BundleError):
        predictor.self_test()  # golden images are read, and verified, when they are replayed


@pytest.mark.parametrize("backend", SERVED)
def test_what_is_read_again_is_verified_again(
    bundle: Path, backend: str, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(bundle, backend=backend, guard=False, threads=2, trust_code=True)
    expected = predictor.logits(image)
    again = loader_of(predictor)
    (bundle / "logs").mkdir()  # reading a file again does not walk the folder
    assert np.allclose(again().run(image), expected, atol=1e-6)
    module, real = backends.BACKENDS[backend], backends.BACKENDS[backend].load

    def load(*args: Any, **settings: Any) -> backends.Backend:
        destroy(bundle)
        engine: backends.Backend = real(*args, **settings)
        return engine

    monkeypatch.setattr(module, "load", load)
    assert np.allclose(again().run(image), expected, atol=1e-6)
    with pytest.raises(BundleError, match="has SHA-256"):
        again()
    assert np.array_equal(predictor.logits(image), expected), "what was loaded first reads no file any more"


def test_python_opens_each_file_that_serves_once(bundle: Path) -> None:
    """And engines none, as the tests above show. In a fresh process, whose opens are all seen."""
    code = """
import sys
from collections import Counter
opened = Counter()
sys.addaudithook(lambda event, args: opened.update([str(args[0])]) if event == "open" else None)
from runtime import Predictor
Predictor(sys.argv[1], backend="onnx")
import json
print(json.dumps({name: count for name, count in opened.items() if name.startswith(sys.argv[1])}))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    counts = {Path(name).name: count for name, count in json.loads(done.stdout).items()}
    assert {counts[name] for name in ("manifest.json", "model.onnx", "guard.npz")} == {1}


def test_a_fifo_that_takes_a_files_place_stops_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the folder was looked at, and before the file is opened."""
    from stageproof.runtime.bundle import verify as integrity

    real = integrity.assert_nothing_else

    def looked_at(*args: Any) -> None:
        real(*args)
        for name in ("model.onnx", "model.ts"):
            (bundle / name).unlink(missing_ok=True)
            os.mkfifo(bundle / name)

    monkeypatch.setattr(integrity, "assert_nothing_else", looked_at)
    with pytest.raises(
        BundleError,
        match=r"model\.(onnx|ts) (is listed in the manifest but missing|is not a regular file|cannot be read)",
    ):
        Predictor(bundle, backend="onnx")


# A racing writer. Long: run with -m slow.

WRITER = """
import os, sys, time, random
path, good, evil, how = sys.argv[1:5]
contents = [open(evil, "rb").read(), open(good, "rb").read()]
rng = random.Random(0)
print("racing", flush=True)
at = 0
while True:
    content = contents[at % 2]
    if how == "renamed":
        with open(path + ".new", "wb") as file:
            file.write(content)
        os.replace(path + ".new", os.path.join(os.path.dirname(path), os.path.basename(path)))
    else:
        with open(path, "r+b") as file:
            file.write(content)
            file.truncate(len(content))
    at += 1
    time.sleep(rng.choice([0, 0, 1e-4, 1e-3, 3e-3, 1e-2]))
"""


def other_weights(backend: str, folder: Path) -> tuple[str, bytes]:
    """A file of the bundle, and the same with other weights: as an attacker would exchange it."""
    name = {"onnx": "model.onnx", "openvino": "model.bin", "pytorch": "model.safetensors"}[backend]
    content = bytearray((folder / name).read_bytes())
    weights = np.frombuffer((folder / "model.bin").read_bytes()[:864], np.float32)
    at = content.find(weights[:8].tobytes())
    assert at >= 0, "the first convolution's weights stand in every format"
    content[at : at + 864] = (weights * -3).tobytes()
    return name, bytes(content)


@contextmanager
def racing(path: Path, evil: bytes, how: str, folder: Path) -> Iterator[None]:
    shutil.copy(path, folder / "good")
    (folder / "evil").write_bytes(evil)
    arguments = [str(path), str(folder / "good"), str(folder / "evil"), how]
    # The new file is written in another folder: what lies in the bundle is looked at.
    code = WRITER.replace('path + ".new"', repr(str(folder / "new")))
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["renamed", "rewritten"])
@pytest.mark.parametrize("backend", ENGINES)
def test_a_racing_writer_never_wins(bundle: Path, tmp_path: Path, backend: str, how: str, image: np.ndarray) -> None:
    """1,000 first loads and 1,000 loads of what was read again: the model that was verified, or an error."""
    name, evil = other_weights(backend, bundle)
    first = Predictor(bundle, backend=backend, guard=False, threads=1)
    expected = first.logits(image)
    again = loader_of(first)
    ways = {
        "first load": lambda: Predictor(bundle, backend=backend, guard=False, threads=1).logits(image),
        "read again": lambda: again().run(image),
    }
    with racing(bundle / name, evil, how, tmp_path):
        for what, load in ways.items():
            counts = {"loaded": 0, "refused": 0, "won": 0}
            begun = time.perf_counter()
            for _ in range(1000):
                try:
                    counts["loaded" if np.allclose(load(), expected, atol=1e-4) else "won"] += 1
                except BundleError:
                    counts["refused"] += 1
            spent = time.perf_counter() - begun
            sys.stdout.write(f"{backend}, {how}, {what}: {counts}, {spent:.0f} s\n")  # pytest -s shows it
            assert counts["won"] == 0
            assert counts["loaded"] > 20, "the writer leaves the good file there often enough"
            assert counts["refused"] > 20, "and the other one"


@pytest.mark.parametrize("backend", ENGINES)
def test_the_other_weights_would_have_answered_otherwise(bundle: Path, backend: str, image: np.ndarray) -> None:
    """Guards the test above."""
    name, evil = other_weights(backend, bundle)
    module = backends.BACKENDS[backend]
    path = bundle / ("model.xml" if backend == "openvino" else name)
    before = module.load(backends.ModelFile.read(path), precision="fp32", device="cpu", threads=1).run(image)
    (bundle / name).write_bytes(evil)
    after = module.load(backends.ModelFile.read(path), precision="fp32", device="cpu", threads=1).run(image)
    assert np.abs(before - after).max() > 1e-2
