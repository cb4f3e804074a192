"""One thread for networks too small for two: threads that wait for each other would take most of the time."""

from __future__ import annotations

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
    """Class folders of 4 × 10 phantom slices of 32 × 32, each of another person."""
    from runtime.labels import LABELS
    from train.data.phantom import draw_slice

    root = tmp_path_factory.mktemp("few") / "data"
    for stage, label in enumerate(LABELS):
        (root / label).mkdir(parents=True)
        for patient in range(10):
            pixels: np.ndarray = draw_slice(stage, 100 * stage + patient, 0.5, size=32)
            Image.fromarray(pixels).save(root / label / f"{patient}.png")
    return root
