"""One thread for networks too small for two: threads that wait for each other would take most of the time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for subprocesses
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def few_slices(tmp_path_factory) -> Path:
    """Class folders of 4 × 10 phantom slices of 32 × 32, each of another person, as their groups.csv says."""
    from stageproof.runtime.labels import LABELS
    from stageproof.train.data.phantom.__main__ import draw_slice

    root = tmp_path_factory.mktemp("few") / "data"
    for stage, label in enumerate(LABELS):
        (root / label).mkdir(parents=True)
        for patient in range(10):
            pixels: np.ndarray = draw_slice(stage, 100 * stage + patient, 0.5, size=32)
            Image.fromarray(pixels).save(root / label / f"{patient}.png")
    rows = [
        f"{label}/{patient}.png,{10 * stage + patient}" for stage, label in enumerate(LABELS) for patient in range(10)
    ]
    (root / "groups.csv").write_text("\n".join(["file,patient", *rows]) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def small_run(once) -> Path:
    """The run of `tests.train.small_run`. Do not change it: copy it."""
    from tests.train import small_run as small

    return once("small", small.write) / "runs" / "small"


@pytest.fixture(scope="session")
def evaluated(small_run, once) -> Path:
    """`small_run` after `python -m train.evaluate`. Do not change it: copy it."""
    from stageproof.train.evaluate.__main__ import main

    def evaluate(folder: Path) -> int:
        shutil.copytree(small_run, folder / "small", copy_function=os.link)
        return main([str(folder / "small"), "--target-risk", "0.8", "--resamples", "400"])

    return once("evaluated", evaluate) / "small"
