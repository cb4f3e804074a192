"""What several floors' tests share: a few phantoms, a run trained on them for one epoch, and its bundle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Workers share the processors: threads that wait for each other on a busy machine take longer than the work.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

REAL = Path(__file__).resolve().parents[2] / "shared" / "alzheimer_mri" / "train.parquet"


def pytest_collection_modifyitems(items) -> None:
    """The longest file first: at the end it would run alone."""
    items.sort(key=lambda item: item.path.name != "test_readme.py")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public 5,120-slice parquet file, where it lies beside the checkout."""
    if not REAL.exists():
        pytest.skip("the real slices are not beside this checkout (shared/alzheimer_mri/train.parquet)")
    return REAL


@pytest.fixture(scope="session")
def phantoms():
    """96 phantom slices: 4 classes × 6 people × 4 slices."""
    from train.data.phantom import phantom_samples

    return phantom_samples(patients=6, slices=4, size=64, seed=3)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> Path:
    """A run of `python -m train` on phantoms, one epoch of each stage at 32 × 32: real, and not yet good."""
    from train.__main__ import main

    run = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["--image-size", "32", "--head.epochs", "1", "--full.epochs", "1", "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def bundle(trained_run, tmp_path_factory) -> Path:
    """The bundle that `python -m export --to onnx torchscript` makes of `trained_run`. Do not change it: copy it."""
    from export.__main__ import main

    folder = tmp_path_factory.mktemp("export") / "bundle"
    assert main([str(trained_run), "--to", "onnx", "torchscript", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="session")
def scan(tmp_path_factory) -> Path:
    """One phantom slice of nobody in the training data, as a grey JPEG file."""
    from PIL import Image

    from train.data.phantom import draw_slice

    path = tmp_path_factory.mktemp("images") / "scan.jpg"
    Image.fromarray(draw_slice(2, 900, 0.5, seed=99)).save(path, quality=95)
    return path
