"""`benchmarks.archive`: what counts as kept, and a whole run."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stageproof.benchmarks.archive.__main__ import main
from stageproof.benchmarks.archive.measure import Measured, as_row, kept_rows, ways
from tests.serving.conftest import BUNDLE


def test_rows_of_text_files_count_once_per_input(tmp_path):
    (tmp_path / "rows").mkdir()
    (tmp_path / "a.csv").write_text("a.png,ok,Normal,0.9\nb.png,ok,Nor")
    (tmp_path / "rows" / "b.csv").write_text('"path","status","label","probability"\n"a.png","ok","Normal",0.9\n')
    assert kept_rows(tmp_path) == {"a.png": 2}


def test_a_row_says_what_is_missing_and_what_is_doubled():
    found = Measured("dask, 2", 100.4, 1.26, 2.0, 2**20 * 3, 30, 11.0, 150, 100)
    assert as_row(found, 200) == "| dask, 2 | 100 | 2.00 | 1.3 | 3 | 15% | 11 | 50%, 50 doubled |"


def test_every_engine_and_loop_is_measured(tmp_path):
    names = [way.name for way in ways(tmp_path, [1, 2])]
    assert len(names) == len(set(names)) == 10
    assert {name.partition(",")[0] for name in names} == {"stream", "ray-data", "dask", "score"}


def test_too_few_images(tmp_path, capsys):
    assert main([str(BUNDLE), str(tmp_path)]) == 2
    assert "has 0 .jpg and .png images" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run(tmp_path, capsys):
    draw = np.random.default_rng(0)
    for at in range(1000):
        Image.fromarray(draw.integers(0, 255, (16, 16), np.uint8)).save(tmp_path / f"{at:04d}.png")
    assert main([str(BUNDLE), str(tmp_path), "--images", "1000", "--workers", "1", "--only", "score, local"]) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| score")]
    assert row.split("|")[8].strip() == "100%"
