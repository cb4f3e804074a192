"""What several floors' tests share: a few phantoms, a run trained on them for one epoch, and its bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests import helps as helps_of_commands

# Workers share the processors: threads that wait for each other on a busy machine take longer than the work.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # a thread that waits leaves its processor to another worker

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(__file__).resolve().parents[2] / "shared" / "alzheimer_mri" / "train.parquet"


def pytest_collection_modifyitems(items) -> None:
    """The longest file first: at the end it would run alone."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their place: what they hold (a time stamp, an address) may differ from process to process,
    and workers that collect other names run nothing."""
    return argname if isinstance(val, bytes) and len(val) > 16 else None


@pytest.fixture(scope="session")
def once(tmp_path_factory) -> Callable[[str, Callable[[Path], int]], Path]:
    """`once(name, make)`: the folder that `make` writes and answers 0 for, by one worker for all of them.

    A mark beside it says that it is finished; what a maker that failed left is removed and made again. A folder is
    written in its own place and not renamed, because runs and bundles record where they are.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder(name: str, make: Callable[[Path], int]) -> Path:
        with FileLock(base / f"{name}.lock"):
            finished = base / f"{name}.finished"
            if not finished.exists():
                shutil.rmtree(base / name, ignore_errors=True)
                assert make(base / name) == 0
                finished.touch()
        return base / name

    return folder


@pytest.fixture(scope="session")
def wheel(once) -> Path:
    """A folder into which the wheel of this checkout is installed, without what it needs."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]

    def install(folder: Path) -> int:
        source = folder.with_name("wheel-source")  # setuptools builds in the folder that it is given
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source)
        for name in ("stageproof", "runtime", "train", "export", "serving", "benchmarks"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        out = folder.with_name("wheel-file")
        build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(source)]
        subprocess.run(build, check=True)
        made = [str(path) for path in out.glob("*.whl")]
        return subprocess.run([*pip, "install", "--no-deps", "--target", str(folder), *made], check=True).returncode

    return once("wheel", install)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged, one line for each record."""
    from tests.records import logged

    with logged() as lines:
        yield lines


@pytest.fixture(scope="session")
def helps(once) -> dict[str, helps_of_commands.Help]:
    """Command, as words after `python -m` → its `--help`."""
    return helps_of_commands.read(once("helps", helps_of_commands.write))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public 5,120-slice parquet file, where it lies beside the checkout."""
    if not REAL.exists():
        pytest.skip("the real slices are not beside this checkout (shared/alzheimer_mri/train.parquet)")
    return REAL


@pytest.fixture(scope="session")
def phantoms():
    """96 phantom slices: 4 classes × 6 people × 4 slices."""
    from stageproof.train.data.phantom.__main__ import phantom_samples

    return phantom_samples(patients=6, slices=4, size=64, seed=3)


@pytest.fixture(scope="session")
def trained_run(once, phantoms) -> Path:
    """A run of `python -m train` on phantoms at 32 × 32: real, and not yet good.

    The head alone, for which the backbone looks at every slice once: a whole epoch would take ten times as long. The
    backbone is random but for BatchNorm's statistics, and its residual branches count: the shortcuts alone see nothing
    but the corners of so small a picture, which are black in every slice.
    """

    def make(run: Path) -> int:
        import torch
        from torch import nn

        from stageproof.export.data.comparison import preprocessed
        from stageproof.runtime.preprocess import InputSpec
        from stageproof.train.__main__ import main
        from stageproof.train.networks import build

        torch.manual_seed(0)
        model = build("resnet50", 4)
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the statistics of the one batch below
                if name.endswith("bn3"):
                    nn.init.constant_(module.weight, 0.2)
        with torch.inference_mode():
            model.train()(torch.from_numpy(preprocessed(phantoms, InputSpec.imagenet(32))))
        start = run.with_name("start.pth")
        torch.save(model.state_dict(), start)
        options = ["--weights", str(start), "--image-size", "32", "--head.epochs", "3", "--full.epochs", "0"]
        return main([*options, "--out", str(run)])

    return once("tiny", make)


@pytest.fixture(scope="session")
def bundle(trained_run, once) -> Path:
    """The bundle that `python -m export --to onnx torchscript` makes of `trained_run`. Do not change it: copy it."""
    from stageproof.export.__main__ import main

    options = [str(trained_run), "--to", "onnx", "torchscript", "--parity-images", "128"]
    return once("bundle", lambda folder: main([*options, "--out", str(folder)]))


@pytest.fixture(scope="session")
def tiny_checkpoint(once) -> Path:
    """The state dict of a network with 500 weights (`tests.tiny`)."""
    from tests import tiny

    def write(folder: Path) -> int:
        folder.mkdir()
        tiny.write_checkpoint(folder / "tiny.pth")
        return 0

    return once("tiny-checkpoint", write) / "tiny.pth"


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint, once) -> Path:
    """A bundle of it in every format of `tests.tiny.FORMATS`. Do not change it: copy it."""
    from tests import tiny

    def make(folder: Path) -> int:
        tiny.make(tiny_checkpoint, folder, temperature=1.25)
        return 0

    return once("tiny-bundle", make)


@pytest.fixture(scope="session")
def graded_bundle(once) -> Path:
    """The bundle that an export to onnx makes of a run of three classes (`tests.export.label_runs`). The run, `run`,
    and its data, `data`, are beside it. Do not change it: copy it."""
    from stageproof.export.bundle.guard import write_guard
    from stageproof.export.options import Options
    from stageproof.export.run import export
    from tests import tiny
    from tests.export import label_runs

    def make(folder: Path) -> int:
        data = label_runs.write_folders(folder / "data", label_runs.GRADES)
        run = label_runs.write_run(folder / "run", label_runs.GRADES, data)
        with tiny.known(guard=write_guard):
            return 0 if export(Options(source=run, out=folder / "bundle", threads=1)).whole else 1

    return once("graded", make) / "bundle"


@pytest.fixture(scope="session")
def scan(tmp_path_factory) -> Path:
    """One phantom slice of nobody in the training data, as a grey JPEG file."""
    from PIL import Image

    from stageproof.train.data.phantom.__main__ import draw_slice

    path = tmp_path_factory.mktemp("images") / "scan.jpg"
    Image.fromarray(draw_slice(2, 900, 0.5, seed=99)).save(path, quality=95)
    return path
