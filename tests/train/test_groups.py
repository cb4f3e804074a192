"""`groups.csv`: what the audit writes is what training takes; anything amiss is one clear line."""

from __future__ import annotations

import numpy as np
import pytest

from stageproof.runtime.errors import DatasetError, InputError
from stageproof.runtime.labels import FOUR_STAGES
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.config.command_line import parse
from stageproof.train.data.dataset import prepare
from stageproof.train.data.identity.groups_file import with_groups, write_groups
from stageproof.train.data.samples import Samples


@pytest.fixture
def samples() -> Samples:
    names = ["a/1.png", 'b/"two", 2.png', "b/Zoë.png"]
    return Samples([b""] * 3, np.array([0, 1, 1]), names, None, "slices", classes=FOUR_STAGES)


def test_what_is_written_is_read(samples, tmp_path):
    write_groups(tmp_path / "groups.csv", samples.names, np.array([7, 3, 7]))
    assert with_groups(samples, tmp_path / "groups.csv").groups.tolist() == [0, 1, 0]


def test_real_ids_in_any_order_with_other_columns(samples, tmp_path):
    file = tmp_path / "ids.csv"
    rows = ["group,age,file", "OAS1_0042,80,b/Zoë.png", 'OAS1_0042,80,"b/""two"", 2.png"', " OAS1_0007 ,61,a/1.png"]
    file.write_text("\n".join(rows), encoding="utf-8-sig")  # as spreadsheets write it
    told = with_groups(samples, file).groups
    assert told.dtype == np.int64
    assert told.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,age\na/1.png,1\n", "has no column group; its header is file, age"),
        ("", "has no column file and no group; its header is nothing"),
        ("file,group\na/1.png,1\n", "2 files of slices without a row, such as 'b/\"two\", 2.png'"),
        ("file,group\na/1.png,1\nelse.png,2\n", "1 files unknown in slices, such as 'else.png'"),
        ("file,group\na/1.png,1\na/1.png,2\n", "line 3: 'a/1.png' is in two groups, '1' and '2'"),
        ("file,group\na/1.png, \n", "line 2: expected a file and its group"),
        ("file,group\na/1.png\n", "line 2: expected a file and its group"),
        ('file,group\na/1.png,1\n"b/""two"", 2.png",1\nb/Zoë.png,1\n', "has the same group for every file"),
    ],
)
def test_what_is_amiss_is_said(samples, tmp_path, text, message):
    (tmp_path / "groups.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        with_groups(samples, tmp_path / "groups.csv")


def test_a_file_that_cannot_be_read(samples, tmp_path):
    with pytest.raises(DatasetError, match=r"gone\.csv cannot be read as groups"):
        with_groups(samples, tmp_path / "gone.csv")
    (tmp_path / "latin.csv").write_bytes("file,group\nZo\xeb.png,1\n".encode("latin-1"))
    with pytest.raises(DatasetError, match="cannot be read as groups"):
        with_groups(samples, tmp_path / "latin.csv")


def test_training_keeps_the_groups_of_the_file_whole(few_slices, tmp_path):
    names = sorted(path.relative_to(few_slices).as_posix() for path in few_slices.rglob("*.png"))
    pairs = np.arange(40) // 2
    write_groups(tmp_path / "groups.csv", names, pairs)
    options = {"max_unreadable": 0.0, "split": "patient", "fold": 0, "folds": 5, "seed": 0}
    data = prepare(few_slices, InputSpec.imagenet(32), groups=tmp_path / "groups.csv", **options)
    assert data.patients_from == "file"
    assert data.facts()["patients"] == 20
    assert data.similarity is None
    told = dict(zip(names, pairs, strict=True))
    sides = [{told[data.slices.names[at]] for at in side} for side in (data.split.training, data.split.validation)]
    assert not sides[0] & sides[1]


def test_groups_without_data_are_refused(tmp_path):
    with pytest.raises(InputError, match="--groups gives the patients of --data, and no --data is given"):
        parse(["--groups", str(tmp_path / "groups.csv")])
