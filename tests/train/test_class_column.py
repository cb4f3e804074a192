"""What a label stands for: names, positions and ratings, decided in one place; contradictions are refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime.errors import DatasetError
from stageproof.runtime.labels import BUILT_IN, LabelSet, label_set
from stageproof.train.audit.__main__ import main as audit
from stageproof.train.data.class_column import name_classes, resolve
from stageproof.train.data.identity.from_names import from_names
from stageproof.train.data.sources.source import load_parts, load_samples
from stageproof.train.data.tables import COLUMNS
from tests import cohort as of
from tests.cohort import SETS, cohort

CN_MCI_AD = label_set(BUILT_IN["cn-mci-ad"])


def names(found) -> list[str]:
    classes, labels = found
    return [classes.names[label] for label in labels]


@pytest.mark.parametrize("spelt", [[0, 1, 2], [0.0, 1.0, 2.0], ["0", "1", "2"], ["0.0", " 1.0", "2."]])
def test_positions_follow_the_order_that_is_given(spelt: list) -> None:
    assert names(resolve(spelt, "x", CN_MCI_AD)) == ["CN", "MCI", "AD"]
    other = label_set(["sick", "well", "between"])
    assert names(resolve(spelt[::-1], "x", other)) == ["between", "well", "sick"]
    with pytest.raises(DatasetError, match=r"x: the labels are the numbers 0, 1, 2, .* from 0: --classes A,B,C, or"):
        resolve(spelt, "x")


def test_the_message_lists_every_built_in_set() -> None:
    with pytest.raises(DatasetError) as caught:
        resolve(["0", "1"], "x")
    for title, classes in BUILT_IN.items():
        assert f"{title} ({', '.join(classes)})" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([1, 2, 3], CN_MCI_AD, "label '3' is not a position .* Expected 0 to 2, in this order. Subtract 1 if"),
        ([-1, 0], CN_MCI_AD, "'-1', '0' are none of the classes CN, MCI, AD"),
        ([0.5, 1], CN_MCI_AD, "'0.5', '1' are none"),
        (["CN", "1"], CN_MCI_AD, "'1' is none of the classes"),
        (["CN", "SMC"], CN_MCI_AD, "'SMC' is none of the classes CN, MCI, AD"),
        (["0", "1"], label_set(["1", "2"]), "'0' is none of the classes 1, 2; it is not taken as a position"),
        (["CN", "NonDemented"], None, "of one built-in label set .they are of several"),
        (["AD", "tumour"], None, "'tumour' is in none"),
        (["CN", None, "AD"], None, "1 of 3 labels are empty, such as that of 'second'"),
        (["CN", float("nan"), ""], None, "2 of 3 labels are empty"),
        ([True, False], CN_MCI_AD, "'True', 'False' are none"),
        (["0", "1", "2"], label_set(BUILT_IN["cdr"]), "may be ratings or positions in CDR 0, CDR 0.5"),
        (["0", "1", "4"], label_set(BUILT_IN["cdr"]), "'4' is none of .* not taken as a position"),
        (["x" * 200], None, "is in none"),
        (["inf"], None, "'inf' is in none"),
    ],
)
def test_what_is_refused(values: list, classes: LabelSet | None, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        resolve(values, "x", classes, names=["first", "second", "third"][: len(values)])


@pytest.mark.parametrize("values", [[0, 0.5, 1, 2], ["0.0", ".5", "1", "2.0"], ["CDR 0", "cdr=0.5", "1", "0"]])
def test_ratings_are_known_by_one_half(values: list) -> None:
    classes, _ = found = resolve(values, "x")
    assert classes.title == "cdr" or set(classes.names) < set(BUILT_IN["cdr"])
    assert names(found)[:2] == ["CDR 0", "CDR 0.5"]
    assert names(resolve(values, "x", label_set(BUILT_IN["cdr"])))[:2] == ["CDR 0", "CDR 0.5"]


def test_a_column_of_ratings_needs_no_half() -> None:
    assert names(resolve([0, 1, 2, 3], "x", ratings=True)) == ["CDR 0", "CDR 1", "CDR 2", "CDR 3"]
    assert names(resolve(["1", "0"], "x", label_set(BUILT_IN["cdr"]), ratings=True)) == ["CDR 1", "CDR 0"]
    with pytest.raises(DatasetError, match="'4' is in none"):
        resolve([0, 4], "x", ratings=True)


def test_spellings_of_one_class_are_one_class() -> None:
    assert names(resolve(["NC", "cognitively normal", "ad", "Alzheimer's Disease"], "x")) == ["CN", "CN", "AD", "AD"]


def test_declared_classes_count_unless_they_are_of_no_set() -> None:
    assert resolve(["CN", "AD"], "x", declared=["AD", "CN", "MCI"])[0] == CN_MCI_AD
    assert resolve(["CN", "AD"], "x", declared=["AD", "CN", "unlabelled"])[0].names == ("CN", "AD")


@pytest.mark.parametrize("column", ["CDR", "cdr_global", "CDGLOBAL"])
def test_a_table_of_ratings(tmp_path: Path, column: str) -> None:
    ratings = dict(zip(SETS[3].names, ("0.0", "1.0", "2"), strict=True))
    samples = load_samples(of.csv(cohort(3), tmp_path / "a", ratings.__getitem__, column))
    assert samples.classes.names == ("CDR 0", "CDR 1", "CDR 2")
    assert [int(one) for one in samples.labels] == [SETS[3].index(one.label) for one in cohort(3)]


@pytest.mark.parametrize("spell", [int, float, lambda at: f"{at}.0"])
def test_numbers_in_a_table_and_in_parquet(tmp_path: Path, spell) -> None:
    import pyarrow.parquet as pq

    slices, classes = cohort(3), SETS[3]
    paths = [of.csv(slices, tmp_path / "a", lambda name: spell(classes.index(name)))]
    pq.write_table(of.table(slices, None, lambda name: spell(classes.index(name))), tmp_path / "b.parquet")
    for path in (*paths, tmp_path / "b.parquet"):
        assert load_samples(path, classes=classes).labels.tolist() == [classes.index(one.label) for one in slices]
        with pytest.raises(DatasetError, match="nothing gives their order"):
            load_samples(path)


def test_folders_that_are_numbers(tmp_path: Path) -> None:
    classes = SETS[3]
    root = of.class_folders(cohort(3), tmp_path / "a", lambda name: str(classes.index(name)))
    with pytest.raises(DatasetError, match=r"class folders: the labels are the numbers 0, 1, 2, .* --classes A,B,C"):
        load_samples(root)
    samples = load_samples(root, classes=classes)
    assert [classes.names[label] for label in samples.labels] == sorted(
        (one.label for one in cohort(3)), key=classes.index
    )
    (root / "2").rename(root / "3")
    with pytest.raises(DatasetError, match="Subtract 1 if the numbers begin at 1"):
        load_samples(root, classes=classes)
    (root / "3").rename(root / "02")
    (root / "2").mkdir()
    with pytest.raises(DatasetError, match="'02', '2' are the same class spelt twice"):
        load_samples(root, classes=classes)


def test_folders_of_two_sets(tmp_path: Path) -> None:
    root = of.class_folders(cohort(3), tmp_path / "a", lambda name: name.replace("AD", "NonDemented"))
    with pytest.raises(DatasetError, match=r"'CN', 'MCI', 'NonDemented' are not those of one .*they are of several"):
        load_samples(root)


def test_folders_of_a_set_that_nobody_knows(tmp_path: Path) -> None:
    root = of.class_folders(cohort(3), tmp_path / "a", lambda name: f"my {name}")
    with pytest.raises(DatasetError, match=r"'my AD', 'my CN', 'my MCI' are in none"):
        load_samples(root)
    found = load_samples(root, classes=label_set(["my CN", "my MCI", "my AD"]))
    assert found.labels.tolist() == [2] * 8 + [0] * 8 + [1] * 8  # folders are sorted by name
    with pytest.raises(DatasetError, match="'my MCI' is none of the classes my CN, my AD"):
        load_samples(root, classes=label_set(["my CN", "my AD"]))


def test_one_class_in_two_folders(tmp_path: Path) -> None:
    root = of.class_folders(cohort(3), tmp_path / "a")
    of.class_folders(cohort(2)[:1], root, lambda name: "Normal")
    with pytest.raises(DatasetError, match=r"'CN', 'Normal' are the same class spelt twice\. Merge them"):
        load_samples(root)


def test_parts_have_one_label_set(tmp_path: Path) -> None:
    slices = cohort(3)
    root = tmp_path / "a"
    of.class_folders(slices, root / "train")
    of.class_folders([one for one in slices if one.label != "MCI"], root / "test")
    samples, part = load_parts(root)
    assert samples.classes == CN_MCI_AD
    assert part is not None
    assert [samples.classes.names[label] for label in samples.labels[part == "test"]] == ["AD"] * 8 + ["CN"] * 8
    for folder in ("AD", "CN"):
        (root / "test" / folder).rename(root / "test" / {"AD": "Demented", "CN": "NonDemented"}[folder])
    with pytest.raises(DatasetError, match=r"are not those of one built-in label set \(they are of several"):
        load_parts(root)


def test_class_names_in_another_order_than_the_clinical_one(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    for at, order in enumerate((["MCI", "AD", "CN"], ["AD", "MCI", "CN"])):
        pq.write_table(of.table(cohort(3), order), tmp_path / f"{at}.parquet")
        samples = load_samples(tmp_path / f"{at}.parquet")
        assert samples.classes == CN_MCI_AD
        assert samples.labels.tolist() == [CN_MCI_AD.index(one.label) for one in cohort(3)]


def test_a_shard_without_class_names_is_not_mixed_with_one_that_has_them(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    root = of.shards(cohort(3), tmp_path / "a")
    bare = of.table(cohort(3)[1::2], None, CN_MCI_AD.index)
    pq.write_table(bare, root / "data" / "train-00001-of-00002.parquet")
    for classes in (None, CN_MCI_AD):
        with pytest.raises(DatasetError, match="'0'"):
            load_samples(root, classes=classes)


def test_missing_labels(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    blank = dict.fromkeys(SETS[3].names, "") | {"CN": "CN"}
    with pytest.raises(DatasetError, match=r"slices.csv, column 'Label': 16 of 24 labels are empty, such as that of"):
        load_samples(of.csv(cohort(3), tmp_path / "a", blank.__getitem__))
    pq.write_table(of.table(cohort(3), None, lambda name: blank[name] or None), tmp_path / "b.parquet")
    with pytest.raises(DatasetError, match="16 of 24 labels are empty"):
        load_samples(tmp_path / "b.parquet", classes=CN_MCI_AD)


def test_a_column_named_group_may_have_classes(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    slices = cohort(2)
    path = of.csv(slices, tmp_path / "a")
    text = path.read_text(encoding="utf-8-sig").replace(";Patient;", ";Subject;").replace("Label", "Group")
    path.write_text(text)
    samples = load_samples(path)
    assert [samples.classes.names[label] for label in samples.labels] == [one.label for one in slices]
    assert samples.ids is not None
    assert "column 'Subject'" in samples.ids.origin
    path.write_text(text.replace(";Subject;", ";whatever;"))
    assert "file names" in getattr(load_samples(path).ids, "origin", "")
    table = of.table(slices, None)
    pq.write_table(table.append_column("group", table.column("label")), tmp_path / "b.parquet")
    assert "file names" in getattr(load_samples(tmp_path / "b.parquet").ids, "origin", "")


def test_participants_without_a_class(tmp_path: Path) -> None:
    root = of.bids(cohort(3), tmp_path / "a")
    text = (root / "participants.tsv").read_text()
    (root / "participants.tsv").write_text(text.replace("\tCN", "\tn/a", 1))
    with pytest.raises(DatasetError, match=r"has no column with a class in every row .*'n/a' is in none"):
        load_samples(root)
    (root / "participants.tsv").write_text(re.sub("diagnosis", "anything", text))
    assert load_samples(root).classes == CN_MCI_AD


def test_class_folders_named_by_position_are_no_patients() -> None:
    paths = [f"{label}/p{person}/{at}.png" for label in range(9) for person in range(3) for at in range(4)]
    ids, _ = from_names(paths, np.repeat(np.arange(9), 12), label_set([f"grade {chr(97 + at)}" for at in range(9)]))
    assert ids is not None
    assert len(np.unique(ids.subjects)) == 27


def test_an_audit_of_a_label_set_that_is_given(tmp_path: Path, capsys) -> None:
    root = of.zipped(of.parts)(cohort(7), tmp_path / "a")
    options = ["--data", str(root), "--out", str(tmp_path / "audit"), "--json"]
    assert audit(options) == 2
    told = capsys.readouterr().err
    assert f"{root}/test, class folders: the classes 'Doubtful'" in told
    assert "--classes A,B,C" in told
    assert audit([*options, "--classes", ",".join(SETS[7].names), "--positive", "Grade 3,Bedridden"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["slices_by_class"] == dict.fromkeys(SETS[7].names, 4)
    assert found["clinical_order"] == list(SETS[7].names)
    assert found["positive"] == ["Grade 3", "Bedridden"]
    assert found["given_split"]["slices_by_folder"] == {"test": 8, "train": 20}
    assert found["patients"] == 14


def test_the_documentation_lists_the_sets_and_the_columns() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    assert {title: tuple(names.split(", ")) for title, names, _ in rows} == BUILT_IN
    for title, names, positive in rows:
        classes = label_set(BUILT_IN[title])
        rest = [name for name in names.split(", ") if name != positive.removeprefix("all but ")]
        assert classes.positive == (tuple(rest) if positive.startswith("all but") else tuple(positive.split(", ")))
    columns = re.search(r"label columns that are looked for are (.*), in this order", page)
    assert columns is not None
    assert [one for one in COLUMNS["label"] if "cd" not in one or one == "cdr"] == re.findall(r"`(\w+)`", columns[1])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Demented", "Nondemented", "Converted"], True),  # OASIS-2
        (["AD", "CN"], True),
        (["KL", "MB", "AD", "NC"], False),  # initials
        (["", "p1"], False),
    ],
)
def test_names_of_classes_are_no_patients_but_initials_may_be_one(values: list[str], expected: bool) -> None:
    assert name_classes(values) is expected
