"""Tables as strangers write them: read as they are meant, or refused by name. None is read as something else."""

from __future__ import annotations

import io
import logging
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from stageproof.runtime.errors import DatasetError, InputError
from stageproof.runtime.labels import BUILT_IN, FOUR_STAGES, label_set
from stageproof.train.data.class_column import resolve
from stageproof.train.data.sources.source import load_samples

CN_AD = label_set(BUILT_IN["cn-ad"])


def png(value: int) -> bytes:
    found = io.BytesIO()
    Image.new("L", (8, 8), value).save(found, "PNG")
    return found.getvalue()


def table(folder: Path, *rows: str, name: str = "list.csv") -> Path:
    """A table beside the images 0.png to 5.png."""
    for at in range(6):
        (folder / f"{at}.png").write_bytes(png(at))
    (folder / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / name


def test_a_decimal_comma_is_read_between_semicolons_and_refused_between_commas(tmp_path: Path) -> None:
    samples = load_samples(table(tmp_path, "path;cdr", "0.png;0", "1.png;0,5", "2.png;1,0"))
    assert [samples.classes.names[at] for at in samples.labels] == ["CDR 0", "CDR 0.5", "CDR 1"]
    with pytest.raises(DatasetError, match=r"line 3: the row has more cells than the header, which has 2\. Quote"):
        load_samples(table(tmp_path, "path,cdr", "0.png,0", "1.png,0,5", "2.png,1"))
    assert len(load_samples(table(tmp_path, "path,label", "0.png,CN,,", "1.png,AD,"))) == 2


def test_a_quotation_mark_that_is_not_closed_swallows_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="a quotation mark is not closed"):
        load_samples(table(tmp_path, "path,label,note", "0.png,CN,x", '1.png,AD,"5 inch', "2.png,CN,x"))
    samples = load_samples(table(tmp_path, "path,note,label", '0.png,"a\nb, c",CN', '1.png,a 5" disk,AD'))
    assert [samples.classes.names[at] for at in samples.labels] == ["CN", "AD"]


@pytest.mark.parametrize(
    "header", ["path,label,Label", "path,label,patient,Patient", "path,label,Patient ID,patient_id"]
)
def test_two_columns_of_one_name_are_refused(tmp_path: Path, header: str) -> None:
    rest = ",1" * (header.count(",") - 1)
    with pytest.raises(DatasetError, match="has 2 columns of one name"):
        load_samples(table(tmp_path, header, f"0.png,CN{rest}", f"1.png,AD{rest}"))


def test_a_column_that_is_not_used_is_said(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.INFO)
    load_samples(table(tmp_path, "path,label,patient,subject,dx", "0.png,CN,1,7,AD", "1.png,AD,2,7,CN"))
    assert "patients are read from the column 'patient', not from 'subject'" in caplog.text
    assert "labels are read from the column 'label', not from 'dx'" in caplog.text


def test_one_file_in_two_spellings_is_listed_twice(tmp_path: Path) -> None:
    for other in ("./0.png", str(tmp_path / "0.png"), f"../{tmp_path.name}/0.png"):
        with pytest.raises(DatasetError, match=r"twice, also as '0\.png'"):
            load_samples(table(tmp_path, "path,label", "0.png,CN", f"{other},AD"))


@pytest.mark.parametrize(("one", "other"), [("001", "1"), ("7", "7.0"), ("sub-01", "1")])
def test_ids_that_a_spreadsheet_changed_do_not_split_a_patient(tmp_path: Path, one: str, other: str) -> None:
    rows = ("path,label,patient", f"0.png,CN,{one}", "1.png,AD,9", f"2.png,CN,{other}")
    with pytest.raises(DatasetError, match=f"column 'patient': '{one}' and '{other}' are one number in two spellings"):
        load_samples(table(tmp_path, *rows))
    groups = table(tmp_path, "file,patient", f"CN/0.png,{one}", "AD/1.png,9", f"CN/2.png,{other}", name="groups.csv")
    for name in ("CN/0.png", "AD/1.png", "CN/2.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(png(3))
    groups.rename(tmp_path / "data" / "groups.csv")
    assert "two spellings" in load_samples(tmp_path / "data").notes[0]


def test_classes_are_no_patients(tmp_path: Path) -> None:
    rows = ("path,label,Group", "0.png,Demented,Converted", "1.png,Nondemented,Nondemented", "2.png,Demented,Demented")
    samples = load_samples(table(tmp_path, *rows))
    assert samples.ids is None
    assert samples.classes.title == "demented-or-not"


def test_ratings_are_the_stages_they_define_and_never_positions(tmp_path: Path) -> None:
    rows = ("path,cdr", "0.png,0", "1.png,1", "2.png,2")
    samples = load_samples(table(tmp_path, *rows), classes=FOUR_STAGES)
    assert [samples.classes.names[at] for at in samples.labels] == ["NonDemented", "MildDemented", "ModerateDemented"]
    assert resolve([0, 0.5, 1, 2], "x", FOUR_STAGES)[1].tolist() == [0, 1, 2, 3]
    assert resolve([0, 1, 2, 3], "x", FOUR_STAGES)[1].tolist() == [0, 1, 2, 3]
    with pytest.raises(DatasetError, match="numbers are Clinical Dementia Ratings, and none of the classes CN, AD is"):
        load_samples(table(tmp_path, "path,cdr", "0.png,0", "1.png,1"), classes=CN_AD)


@pytest.mark.parametrize("name", ["CDR 0.5", "cdr_0.5", "CDR=.5"])
def test_a_rating_in_a_name_is_found_among_the_stages(name: str) -> None:
    assert FOUR_STAGES.find(name) == "VeryMildDemented"
    assert FOUR_STAGES.find("0.5") is None
    assert FOUR_STAGES.find("CDR 3") is None


def test_names_that_macos_decomposes_are_the_same(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "démence") for form in ("NFC", "NFD"))
    classes = label_set(["sain", composed])
    assert classes.find(decomposed) == composed
    assert label_set(["sain", decomposed]) == classes
    with pytest.raises(InputError, match="named twice"):
        label_set([composed, decomposed])
    for name in (composed, decomposed, "sain"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "0.png").write_bytes(png(0))
    if len(list(tmp_path.iterdir())) == 3:  # file systems that do not compose names
        with pytest.raises(DatasetError, match="are the same class spelt twice"):
            load_samples(tmp_path, classes=classes)


def bids(root: Path, *rows: str) -> Path:
    for subject in ("01", "02", "03"):
        for at in range(1, 4):
            file = root / f"sub-{subject}" / f"sub-{subject}_{at}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(png(at))
    (root / "participants.tsv").write_text("\n".join(row.replace(" ", "\t") for row in rows) + "\n")
    return root


def test_a_participant_of_two_classes_is_refused(tmp_path: Path) -> None:
    rows = ("participant_id dx", "sub-01 AD", "sub-02 CN", "sub-01 CN", "sub-03 CN")
    with pytest.raises(DatasetError, match="several rows of sub-01 with different classes in 'dx': 'AD' and 'CN'"):
        load_samples(bids(tmp_path, *rows))
    assert len(load_samples(bids(tmp_path, *rows[:3], "sub-01 AD", rows[4]))) == 9


def test_slice_numbers_are_no_participants(tmp_path: Path) -> None:
    data = bids(tmp_path / "all", "participant_id dx", "1 AD", "2 CN", "3 AD")
    for subject, name in (("01", "AD"), ("02", "CN"), ("03", "AD")):
        (data / name).mkdir(exist_ok=True)
        (data / f"sub-{subject}").rename(data / name / f"sub-{subject}")
    samples = load_samples(data)
    assert samples.ids is not None
    assert samples.ids.origin.startswith("BIDS ids in file names")
    assert samples.ids.subjects.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert "9 of 9 files name none of them" in samples.notes[0]


@pytest.mark.parametrize(
    ("patients", "note"),
    [
        (["a", "b", None, "d"], "column 'patient' of list.parquet: empty in 1 of 4 rows, not used"),
        (["a", "a", "a", "a"], "column 'patient' of list.parquet: the same for all slices, not used"),
        (["Demented", "Converted", "Demented", "Nondemented"], "has names of classes, not used"),
        (["a ", "b", "a", "b"], None),
        ([1.0, 2.0, 1.0, 2.0], None),
    ],
)
def test_patients_in_parquet(tmp_path: Path, patients: list, note: str | None) -> None:
    images = [{"bytes": png(at), "path": f"{at}.png"} for at in range(4)]
    made = pa.table({"image": images, "label": ["CN", "AD"] * 2, "patient": patients})
    pq.write_table(made, tmp_path / "list.parquet")
    samples = load_samples(tmp_path / "list.parquet")
    if note is None:
        assert samples.ids is not None
        assert samples.ids.subjects.tolist() == [0, 1, 0, 1]
    else:
        assert samples.ids is None
        assert note in samples.notes[0]
