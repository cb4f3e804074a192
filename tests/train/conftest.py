"""One thread for networks too small for two: threads that wait for each other would take most of the time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from tests.train.hub_server import Hub


@pytest.fixture(autouse=True)
def one_thread(monkeypatch) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # for subprocesses
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    """The stand-in hub. The library of this process connects to it, logged in, with an empty cache; the working folder
    is empty too. What the environment sets for a process (HF_ENDPOINT, …) is set in the library's constants."""
    from huggingface_hub import close_session, constants

    from tests.train import hub_server

    with hub_server.running() as started:
        values = {
            "ENDPOINT": started.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": started.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hf" / "hub"),
            "HF_ASSETS_CACHE": str(tmp_path / "hf" / "assets"),
            "HF_TOKEN_PATH": str(tmp_path / "hf" / "token"),
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,  # the stand-in has large files by LFS alone
        }
        for name, value in values.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
        (tmp_path / "work").mkdir()
        monkeypatch.chdir(tmp_path / "work")
        yield started
        close_session()


_PICTURES: dict[tuple, dict[str, bytes]] = {}


@pytest.fixture
def drawn_once(monkeypatch) -> None:
    """Evaluations with the same kinds of pictures share them in this process: matplotlib takes most of the time of an
    evaluation. For tests of figures, warnings, cards and files; `evaluated` has pictures of its own."""
    from stageproof.train.evaluate import save

    real = save.pictures

    def pictures(facts, slices, people, shuffled):
        kinds = (slices.classes.names, people is None, shuffled is None, frozenset(slices.labels.tolist()))
        if kinds not in _PICTURES:
            _PICTURES[kinds] = real(facts, slices, people, shuffled)
        return _PICTURES[kinds]

    monkeypatch.setattr(save, "pictures", pictures)


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
