"""Label sets: every built-in one in every spelling, their order, what is no label set, and names that nearly agree."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import (
    ALPHABETICAL,
    BUILT_IN,
    CDR,
    FOUR_STAGES,
    LABELS,
    LARGEST,
    LabelSet,
    canonical_label,
    label_set,
    named_or_listed,
    recognise,
)
from stageproof.runtime.labels.scales import SCALES, plain, rating

WRITINGS = (
    str,
    str.lower,
    str.upper,
    lambda name: f"  {name}\n",
    lambda name: f"Final {name} JPEG",
)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize(
    "spell",
    [
        *WRITINGS,
        lambda name: name.replace("Demented", "_Demented"),
        lambda name: name.replace("Very", "Very ").replace("Demented", " Demented"),
        lambda name: name.replace("Very", "very-").replace("Demented", "-dementia"),
        lambda name: (
            name.replace("NonDemented", "No Impairment").replace("yM", "y M").replace("Demented", " Impairment")
        ),
        lambda name: name.replace("NonDemented", "no_impairment").replace("Demented", "_IMPAIRED"),
    ],
)
def test_every_spelling_is_one_class(label: str, spell) -> None:
    assert canonical_label(spell(label)) == label
    assert FOUR_STAGES.find(spell(label)) == label
    assert recognise([spell(label), "mild demented"]) == FOUR_STAGES


@pytest.mark.parametrize("name", ["", "Demented", "Severe Demented", "NonDementedNonDemented", "0", "Mild", "démented"])
def test_other_names_are_no_class(name: str) -> None:
    assert canonical_label(name) is None
    assert FOUR_STAGES.find(name) is None


@pytest.mark.parametrize("title", BUILT_IN)
def test_every_built_in_set_in_every_spelling_that_is_listed(title: str) -> None:
    classes = label_set(BUILT_IN[title])
    assert classes.names == BUILT_IN[title]
    assert classes.title == title
    assert recognise(classes.names) == classes
    assert named_or_listed(title.upper()) == named_or_listed(f" {title} ") == classes
    scale = next(scale for scale in SCALES if set(classes.names) <= set(scale.names))
    for name in classes.names:
        for spelling, write in itertools.product((name, *scale.spellings[name]), WRITINGS):
            assert classes.find(write(spelling)) == name, (write(spelling), name)
    assert 0 < len(classes.positive) < len(classes)
    assert classes.is_positive.tolist() == [name in classes.positive for name in classes.names]


def test_no_spelling_belongs_to_two_classes_of_a_scale() -> None:
    for scale in SCALES:
        pairs = {(plain(one), name) for name in scale.names for one in (name, *scale.spellings[name])}
        assert len({spelling for spelling, _ in pairs}) == len(pairs)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["AD", "NC"], ("CN", "AD")),
        (["MCI", "ad", "Control"], ("CN", "MCI", "AD")),
        (["LMCI", "EMCI", "AD", "CN"], ("CN", "EMCI", "LMCI", "AD")),
        (["SMC", "AD", "CN"], ("CN", "SMC", "AD")),
        (["EMCI"], ("CN", "EMCI", "LMCI", "AD")),
        (["MCI"], ("CN", "MCI", "AD")),
        (["AD"], ("CN", "AD")),
        (["Moderate Impairment"], LABELS),
        (["Demented", "Nondemented"], ("NonDemented", "Demented")),
        (["Nondemented"], LABELS),
        (["0.5"], BUILT_IN["cdr"]),
        (["0", "0.5", "1"], ("CDR 0", "CDR 0.5", "CDR 1")),
        (["CDR 0", "CDR 2"], ("CDR 0", "CDR 2")),
        (["0", "1", "2"], None),
        (["1.5", "0.5"], None),
        (["CN", "NonDemented"], None),
        (["MCI", "Mild Demented"], None),
        (["CN", "0.5"], None),
        (["glioma"], None),
        (["train", "test"], None),
        ([""], None),
        ([], None),
    ],
)
def test_recognised_sets(names: list[str], expected: tuple[str, ...] | None) -> None:
    for order in (names, names[::-1]):
        found = recognise(order)
        assert (found and found.names) == expected


def test_orders() -> None:
    assert [CDR[label] for label in LABELS] == [0, 0.5, 1, 2]
    assert ALPHABETICAL == ("MildDemented", "ModerateDemented", "NonDemented", "VeryMildDemented")
    assert FOUR_STAGES.has_cdr
    assert [FOUR_STAGES.cdr(name) for name in LABELS] == [0, 0.5, 1, 2]
    assert label_set(BUILT_IN["cdr"]).cdr("CDR 3") == 3
    assert not label_set(["CN", "AD"]).has_cdr
    assert label_set(["well", "sick"]).cdr("sick") is None


@pytest.mark.parametrize("title", BUILT_IN)
def test_another_order_than_the_clinical_one_is_refused(title: str) -> None:
    names = BUILT_IN[title]
    for order in itertools.islice(itertools.permutations(names), 1, 30):
        with pytest.raises(InputError, match=f"expected them in clinical order, {', '.join(names)}"):
            label_set(order)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "0 classes"),
        (["CN"], r"1 classes \(CN\), expected 2 to 20"),
        ([f"grade {chr(97 + at)}" for at in range(LARGEST + 1)], r"21 classes .*expected 2 to 20"),
        (["a\0", "b"], "expected 1 to 64 printable characters"),
        (["a\nb", "c"], "printable"),
        (["a\x1b[31m", "c"], "printable"),
        (["a\u200b", "c"], "printable"),
        (["a\u202eb", "c"], "printable"),
        (["", "c"], "printable"),
        (["   ", "c"], "printable"),
        (["x" * 65, "c"], "printable"),
        (["a,b", "c"], "without commas and slashes"),
        (["a/b", "c"], "without commas and slashes"),
        (["..\\b", "c"], "without commas and slashes"),
        (["..", "c"], "not of dots alone"),
        (["grade", "Grade"], "Grade, grade is named twice"),
        (["grade", "grade"], "named twice"),
        (["AD", "CN", "Alzheimer"], "AD is named twice"),
    ],
)
def test_what_is_no_label_set(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_set(names)


def test_twenty_classes_with_any_names() -> None:
    names = ["Größe 1.5", "MCI", "CN", "a b", *(f"grade {chr(97 + at)}" for at in range(16))]
    classes = label_set(names)
    assert classes.names == tuple(names)
    assert classes.positive == tuple(names[1:])
    assert [classes.find(name) for name in names] == names
    assert classes.title == "custom"


@pytest.mark.parametrize("positive", [["AD"], ["AD", "MCI"], ["ad", " mci "]])
def test_positive_classes(positive: list[str]) -> None:
    classes = label_set(["CN", "MCI", "AD"], positive)
    assert classes.positive == tuple(
        name for name in ("MCI", "AD") if name in [one.strip().upper() for one in positive]
    )
    assert np.array_equal(classes.is_positive, [False, len(positive) == 2, True])


def test_positives_that_are_not_the_last_classes() -> None:
    classes = label_set(["a", "b", "c"], ["a", "c"])
    assert classes.is_positive.tolist() == [True, False, True]
    assert classes.question == "a or c, or not"
    assert label_set(["CN", "MCI", "AD"]).question == "AD or not"
    assert FOUR_STAGES.question == "demented or not"


@pytest.mark.parametrize(
    ("positive", "message"),
    [(["CN", "AD"], "all classes are positive"), (["EMCI"], "positive classes EMCI: expected some of CN, AD")],
)
def test_positives_that_are_refused(positive: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_set(["CN", "AD"], positive)


@pytest.mark.parametrize(
    ("names", "asked", "found"),
    [
        (("A+", "A-"), "A+", "A+"),
        (("A+", "A-"), "a-", "A-"),
        (("A+", "A-"), "A", None),
        (("A+", "B"), "A-", None),
        (("A+", "B"), "A", None),
        (("2.0", "3.0"), "20", None),
        (("grade 1", "grade 11"), "grade 1 1", None),
        (("grade 1", "grade 11"), "Grade_1", "grade 1"),
        (("very early", "late"), "VeryEarly", "very early"),
        (("very early", "late"), "very-early", "very early"),
        (("t1-2", "t12"), "t1-2", "t1-2"),
        (("t1-2", "t3"), "t12", None),
        (("-1", "2"), "1", None),
        (("stage", "no stage"), "nostage", "no stage"),
        (("größe", "klein"), "GRÖSSE", "größe"),
        (("größe", "klein"), "GRÖßE", "größe"),
        (("CN", "AD"), "MCI", None),
        (("CN", "AD"), "NonDemented", None),
        (("CN", "AD"), "", None),
    ],
)
def test_names_that_nearly_agree(names: tuple[str, str], asked: str, found: str | None) -> None:
    assert label_set(names).find(asked) == found


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("0", "CDR 0"),
        ("0.0", "CDR 0"),
        (".5", "CDR 0.5"),
        ("0.50", "CDR 0.5"),
        ("1.", "CDR 1"),
        ("CDR 2", "CDR 2"),
        ("cdr=3", "CDR 3"),
        ("cdr_0.5", "CDR 0.5"),
        ("4", None),
        ("1.5", None),
        ("-1", None),
        ("", None),
        ("five", None),
    ],
)
def test_ratings(value: str, name: str | None) -> None:
    assert rating(value) == name
    assert label_set(BUILT_IN["cdr"]).find(value) == name


@pytest.mark.parametrize(
    ("classes", "positive", "expected"),
    [
        ("CN,MCI,AD", "", LabelSet(("CN", "MCI", "AD"), ("AD",))),
        (" cn , mci,ad ", "mci,AD", LabelSet(("CN", "MCI", "AD"), ("MCI", "AD"))),
        ("well,sick", "sick", LabelSet(("well", "sick"), ("sick",))),
        ("cn-ad", "", LabelSet(("CN", "AD"), ("AD",))),
    ],
)
def test_options(classes: str, positive: str, expected: LabelSet) -> None:
    assert named_or_listed(classes, positive) == expected


@pytest.mark.parametrize("classes", ["", "CN", ",", "cn-mci", "AD,CN"])
def test_options_that_are_refused(classes: str) -> None:
    with pytest.raises(InputError, match="expected"):
        named_or_listed(classes)
