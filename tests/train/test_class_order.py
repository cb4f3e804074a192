"""The order of a checkpoint's classes is the one that is stated, in every form; or the export is refused."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, FOUR_STAGES, LABELS, label_set
from stageproof.train.foreign.class_order import ClassOrder, Given, Statement, decide, given_labels
from stageproof.train.foreign.side_files import beside
from stageproof.train.foreign.stated_order import hints, stated

ORDERS = list(itertools.permutations(LABELS))
SPELLINGS: dict[str, Callable[[str], str]] = {
    "canonical": str,
    "kaggle": lambda name: name.replace("Non", "No ").replace("yM", "y M").replace("Demented", " Impairment"),
    "underscores": lambda name: name.replace("yM", "y_M").replace("Demented", "_Demented").lower(),
    "numbered": lambda name: f"{LABELS.index(name)}_{name}",
}
FORMS: dict[str, Callable[[tuple[str, ...]], dict[str, Any]]] = {
    "class_to_idx": lambda names: {"class_to_idx": {name: at for at, name in enumerate(names)}},
    "shuffled": lambda names: {"class_to_idx": {name: at for at, name in reversed(list(enumerate(names)))}},
    "floats": lambda names: {"class_to_idx": {name: float(at) for at, name in enumerate(names)}},
    "numpy": lambda names: {"class_to_idx": {name: np.int64(at) for at, name in enumerate(names)}},
    "class_indices": lambda names: {"class_indices": {name: at for at, name in enumerate(names)}},
    "label2id": lambda names: {"config": {"label2id": {name: at for at, name in enumerate(names)}}},
    "idx_to_class": lambda names: {"idx_to_class": dict(enumerate(names))},
    "inverted": lambda names: {"class_to_idx": dict(enumerate(names))},
    "id2label": lambda names: {"id2label": {str(at): name for at, name in enumerate(names)}},
    "classes": lambda names: {"classes": list(names), "num_classes": 4, "epoch": 3},
    "class_names": lambda names: {"hyper_parameters": {"data": {"class_names": tuple(names)}}},
    "labels": lambda names: {"labels": dict(enumerate(names))},
    "labels by name": lambda names: {"labels": {name: at for at, name in enumerate(names)}},
    "spelling of the key": lambda names: {"ClassNames": list(names)},
    "JSON in text": lambda names: {"class_to_idx": json.dumps({name: at for at, name in enumerate(names)})},
    "JSON list in text": lambda names: {"format": "pt", "labels": json.dumps(names)},
    "JSON inside": lambda names: {"config": json.dumps({"id2label": dict(enumerate(names))})},
    "commas": lambda names: {"classes": ", ".join(names)},
    "pairs": lambda names: {"class_to_idx": [[name, at] for at, name in enumerate(names)]},
    "float32": lambda names: {"class_to_idx": {name: np.float32(at) for at, name in enumerate(names)}},
    "vocab": lambda names: {"vocab": list(names)},
    "twice alike": lambda names: {"classes": list(names), "idx_to_class": dict(enumerate(names))},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_every_order_is_the_order_stated(form, spelling):
    for order in ORDERS:
        content = FORMS[form](tuple(map(SPELLINGS[spelling], order)))
        found = decide(stated(content, "model.pth"), (), "model.pth")
        assert (found.labels, found.origin) == (order, "checkpoint")
        assert "model.pth" in found.where


@pytest.mark.parametrize("form", FORMS)
def test_another_order_given_is_refused_with_both(form):
    rng = random.Random(0)
    for order in ORDERS:
        other = rng.choice([one for one in ORDERS if one != order])
        with pytest.raises(InputError, match="Contradictory class orders") as caught:
            decide(stated(FORMS[form](order), "model.pth"), other, "model.pth")
        assert ", ".join(order) in str(caught.value)
        assert f"--labels: {', '.join(other)}" in str(caught.value)
        assert decide(stated(FORMS[form](order), "m"), order, "m").labels == order


def test_any_two_forms_that_differ_are_refused_and_any_two_that_agree_are_not():
    rng = random.Random(1)
    for _ in range(500):
        one, other = rng.choice(ORDERS), rng.choice(ORDERS)
        first, second = (FORMS[rng.choice(list(FORMS))] for _ in range(2))
        spell = [SPELLINGS[rng.choice(list(SPELLINGS))] for _ in range(2)]
        statements = stated(first(tuple(map(spell[0], one))), "a.pth")
        statements += stated(second(tuple(map(spell[1], other))), "b.json")
        if one == other:
            assert decide(statements, (), "a.pth").labels == one
            continue
        with pytest.raises(CheckpointError, match="Contradictory class orders") as caught:
            decide(statements, (), "a.pth")
        assert ", ".join(one) in str(caught.value)
        assert ", ".join(other) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"class_to_idx": dict(zip(LABELS, (0, 1, 2, 4), strict=True))},
            r"has the indices \[0, 1, 2, 4\].*0 to 3 once",
        ),
        ({"class_to_idx": dict(zip(LABELS, (1, 2, 3, 4), strict=True))}, r"0 to 3 once"),
        ({"class_to_idx": dict(zip(LABELS, (0, 1, 1, 3), strict=True))}, r"0 to 3 once"),
        ({"class_to_idx": dict(zip(LABELS, (-1, 0, 1, 2), strict=True))}, r"0 to 3 once"),
        ({"class_to_idx": dict(zip(LABELS, (0, 0.5, 1, 2), strict=True))}, r"expected class names with their indices"),
        (
            {"class_to_idx": dict(zip(LABELS, (True, 0, 2, 3), strict=True))},
            r"expected class names with their indices",
        ),
        ({"idx_to_class": dict(zip((0, 1, 2, 5), LABELS, strict=True))}, r"0 to 3 once"),
        ({"id2label": {0: "NonDemented", "0": "MildDemented"}}, r"0 to 1 once"),
        ({"class_to_idx": "see the notes"}, r"expected class names with their indices"),
        ({"idx_to_class": [0, 1, 2, 3]}, r"expected class names with their indices"),
        ({"classes": [*LABELS[:3], "MildDemented"]}, r"has MildDemented twice"),
        ({"classes": [*LABELS[:3], "no impairment"]}, r"has NonDemented twice"),
        ({"idx_to_class": dict(enumerate([*LABELS[:3], "Mild_Demented"]))}, r"has MildDemented twice"),
        ({"classes": list(LABELS[:3])}, r"names 3 classes .*model\.pth has 4 outputs"),
        ({"classes": [*LABELS, "Severe"]}, r"names 5 classes"),
        ({"classes": ["0", "1", "2", "3"]}, r"has the class names '0', '1'.*--labels NonDemented"),
        (
            {"id2label": {str(at): f"LABEL_{at}" for at in range(4)}},
            r"'LABEL_0'.*do not say what .*--labels Non",
        ),
        (
            {"classes": ["MildDemented", "ModerateDemented", "NonDemented", "other"]},
            r"unknown .*'other', among.*--classes",
        ),
    ],
)
def test_what_cannot_be_an_order_is_refused(content, message):
    with pytest.raises(CheckpointError, match=message):
        decide(stated(content, "model.pth"), (), "model.pth")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"classes": 4, "num_classes": 4, "labels": None},
        {"labels": [0, 1, 2, 3, 3, 1], "classes": []},
        {"labels": ["NonDemented"] * 500},
        {"labels": np.arange(4)},
        {"classes": {"NonDemented": [1, 2], "MildDemented": [3]}},
        {"class_weights": {"NonDemented": 0.2}, "epoch": 7, "optimizer": {"state": {0: {"step": 3}}}},
        {"class_to_idx": {}},
        {"labels": "four"},
    ],
)
def test_what_states_no_order_is_assumed_alphabetical_and_says_so(content):
    order = decide(stated(content, "model.pth"), (), "model.pth")
    assert (order.labels, order.origin) == (ALPHABETICAL, ASSUMED)
    assert f"assumed alphabetical: {', '.join(ALPHABETICAL)}. model.pth does not state it" in str(order)
    assert "--labels" in str(order)


def test_classes_listed_under_any_other_key_are_a_hint():
    for order in ORDERS:
        for content in ({"plot": list(order)}, {"a": {"b": {name: at for at, name in enumerate(order)}}}):
            assert stated(content, "m") == []
            assert [one.labels for one in hints(content, "m")] == [order]
    counts = {
        "counts": dict(zip(LABELS, (40, 30, 20, 10), strict=True)),
        "recall": dict(zip(LABELS, (0.1,) * 4, strict=True)),
    }
    assert hints(counts, "m") == []


def test_names_that_say_nothing_need_labels_and_do_not_contradict_them():
    statements = stated({"classes": ["a", "b", "c", "d"]}, "model.pth")
    assert decide(statements, LABELS, "model.pth") == ClassOrder(LABELS, "option", "from --labels", FOUR_STAGES)
    partly = stated({"classes": ["x", "ModerateDemented", "y", "z"]}, "model.pth")
    assert decide(partly, ALPHABETICAL, "model.pth").labels == ALPHABETICAL
    with pytest.raises(InputError, match="Contradictory class orders"):
        decide(partly, LABELS, "model.pth")


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_labels_take_any_known_spelling(spelling):
    for order in ORDERS:
        spelt = tuple(map(SPELLINGS[spelling], order))
        assert given_labels(spelt) == given_labels((",".join(spelt),)) == Given(order, FOUR_STAGES)
    assert given_labels(()) == Given()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("NonDemented", "Mild", "MildDemented", "ModerateDemented"), "unknown classes: 'Mild'"),
        (("tuple.index(x)",), r"has 1 classes \(tuple\.index\(x\)\), expected 2 to 20"),
        ((*LABELS, "NonDemented"), "has NonDemented twice"),
        ((*LABELS[:3], "mild_dementia"), "has MildDemented twice"),
        (("No", "Impairment", "Mild", "Impairment", "Moderate", "Impairment"), "Quote names that contain spaces"),
        (("",), "has 0 classes"),
    ],
)
def test_labels_that_cannot_be_an_order(labels, message):
    with pytest.raises(InputError, match=message):
        given_labels(labels)


def test_wrong_labels_are_refused_before_anything_heavy_is_imported(tmp_path):
    code = (
        "import sys; from export.__main__ import main\n"
        f"status = main(['nowhere.pth', '--labels', 'NonDemented', 'B', '--out', {str(tmp_path / 'b')!r}])\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "InputError: --labels has unknown classes: 'B', among" in done.stderr


SIDE_FILES: dict[str, tuple[str, Callable[[tuple[str, ...]], str]]] = {
    "class_to_idx.json": ("class_to_idx.json", lambda names: json.dumps({name: at for at, name in enumerate(names)})),
    "idx_to_class.json": ("idx_to_class.json", lambda names: json.dumps(dict(enumerate(names)))),
    "nested": (
        "class_to_idx.json",
        lambda names: json.dumps({"class_to_idx": dict(zip(names, range(4), strict=True))}),
    ),
    "classes.json": ("classes.json", lambda names: json.dumps(names)),
    "config.json": ("config.json", lambda names: json.dumps({"id2label": dict(enumerate(names)), "layers": 50})),
    "model.json": ("model.json", lambda names: json.dumps({"training": {"classes": list(names)}})),
    "classes.txt": ("classes.txt", lambda names: "\n".join(names) + "\n"),
    "labels.txt": (
        "labels.txt",
        lambda names: "\ufeff# classes\n" + "\r\n".join(f"{at} {n}" for at, n in enumerate(names)),
    ),
    "numbers behind": (
        "Class_Names.TXT",
        lambda names: "\n".join(f"{n}: {at}" for at, n in reversed(list(enumerate(names)))),
    ),
}


@pytest.mark.parametrize("kind", SIDE_FILES)
def test_a_file_beside_the_checkpoint_is_read(tmp_path, kind):
    name, write = SIDE_FILES[kind]
    for order in ORDERS:
        (tmp_path / name).write_text(write(order), encoding="utf-8")
        (found,) = beside(tmp_path / "model.pth")
        assert found.labels == order
        assert str(tmp_path / name) in found.where
    other = stated({"classes": list(ORDERS[0])}, "model.pth")
    with pytest.raises(CheckpointError, match="Contradictory class orders") as caught:
        decide([*other, found], (), "model.pth")
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.txt", "scan1.png 0\nscan2.png 3\nscan3.png 1\n"),
        ("config.json", '{"learning_rate": 0.1, "num_classes": 4}'),
        ("config.json", "not JSON"),
        ("config.json", json.dumps({"id2label": {str(at): f"class {at}" for at in range(1000)}})),
        ("notes.json", '{"classes": ["MildDemented", "NonDemented"]}'),
        ("other.txt", "\n".join(LABELS)),
        ("labels.txt", ""),
    ],
)
def test_files_that_are_not_about_the_classes_are_left_alone(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    (tmp_path / "classes.json").mkdir()
    assert beside(tmp_path / "model.pth") == []


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe\x00"])
def test_a_file_about_the_classes_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "class_to_idx.json").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"class_to_idx\.json, beside the checkpoint, (is not JSON|cannot be read)"
    ):
        beside(tmp_path / "model.pth")


def test_a_statement_names_what_it_does_not_know():
    assert str(Statement("classes in a.pth", ("No Impairment", "FTD"))) == "classes in a.pth: NonDemented, 'FTD'"


@pytest.mark.parametrize(
    ("names", "clinical", "positive"),
    [
        (("AD", "CN", "MCI"), ("CN", "MCI", "AD"), ("AD",)),
        (
            ("Final AD JPEG", "Final CN JPEG", "Final EMCI JPEG", "Final LMCI JPEG"),
            ("CN", "EMCI", "LMCI", "AD"),
            ("AD",),
        ),
        (("1", "0", "2", "0.5"), ("CDR 0", "CDR 0.5", "CDR 1", "CDR 2"), ("CDR 0.5", "CDR 1", "CDR 2")),
        (("demented", "nondemented"), ("NonDemented", "Demented"), ("Demented",)),
        (("MildDemented", "NonDemented", "VeryMildDemented"), LABELS[:3], LABELS[1:3]),
        (("left", "right"), ("left", "right"), ("right",)),
        (("0_b", "1_a", "2_c"), ("b", "a", "c"), ("a", "c")),
    ],
)
def test_names_that_are_stated_define_the_label_set(names, clinical, positive):
    found = decide(stated({"classes": list(names)}, "model.pth"), (), "model.pth", len(names))
    assert found.classes == label_set(clinical, positive)
    assert found.classes.positive == positive
    assert [found.classes.find(name.partition("_")[2] or name) for name in names] == list(found.labels)
    custom = clinical[0] in ("left", "b")
    assert found.clinical_order_assumed == custom
    assert ("if not, give --classes" in str(found)) == custom
    with pytest.raises(CheckpointError, match=rf"names {len(names)} classes .*has {len(names) + 1} outputs"):
        decide(stated({"classes": list(names)}, "model.pth"), (), "model.pth", len(names) + 1)


@pytest.mark.parametrize("count", [2, 3, 5, 7, 20])
def test_without_names_only_four_outputs_are_assumed(count):
    for content in ({}, {"classes": [str(number) for number in range(count)]}):
        with pytest.raises(CheckpointError, match=r"--labels CLASS0 CLASS1"):
            decide(stated(content, "model.pth"), (), "model.pth", count)
    names = tuple(f"class {chr(97 + number)}" for number in range(count))
    found = decide([], given_labels(names), "model.pth", count)
    assert (found.labels, found.origin, found.classes.names) == (names, "option", names)
    with pytest.raises(InputError, match=rf"--labels has {count} classes .*has 4 outputs, one for each class"):
        decide([], given_labels(names), "model.pth", 4)


def test_classes_give_the_clinical_order_of_a_set_of_ones_own():
    statements = stated({"classes": ["AD", "CN", "FTD"]}, "model.pth")
    with pytest.raises(CheckpointError, match=r"unknown classes: 'FTD', among .*--classes AD CN FTD"):
        decide(statements, (), "model.pth", 3)
    given = given_labels((), ("CN,FTD,AD",), ("AD", "FTD"))
    found = decide(statements, given, "model.pth", 3)
    assert (found.labels, found.origin) == (("AD", "CN", "FTD"), "checkpoint")
    assert found.classes == label_set(("CN", "FTD", "AD"), ("FTD", "AD"))
    assert not found.clinical_order_assumed
    with pytest.raises(InputError, match=r"--classes gives the clinical order of CN, FTD, AD, not the order of"):
        decide([], given, "model.pth", 3)
    with pytest.raises(InputError, match=r"--classes has 3 classes .* has 4 outputs"):
        decide([], given, "model.pth", 4)
    other = given_labels((), ("CN", "FTD", "PD"))
    with pytest.raises(InputError, match=r"--classes is CN, FTD, PD, but classes in model\.pth also names 'AD'"):
        decide(statements, other, "model.pth", 3)
    both = given_labels(("FTD", "AD", "CN"), ("CN", "FTD", "AD"))
    with pytest.raises(InputError, match="Contradictory class orders"):
        decide(statements, both, "model.pth", 3)
    assert decide([], both, "model.pth", 3).labels == ("FTD", "AD", "CN")
    assert given_labels(("mci", "AD", "NC"), ("cn-mci-ad",)).labels == ("MCI", "AD", "CN")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((("a", "b", "c"), ("a", "b")), "--labels has unknown classes: 'c'"),
        ((("a", "b"), ("a", "b", "c")), "--labels has 2 classes; c is missing"),
        (((), ("AD", "CN")), "--classes has classes AD, CN: expected them in clinical order, CN, AD"),
        (((), (), ("AD",)), "--positive needs the classes"),
        ((("a", "b"), (), ("z",)), "positive classes z: expected some of a, b"),
        ((("a", "b"), (), ("a", "b")), "all classes are positive"),
        (((), ("cn-ad-typo",)), "1 classes"),
    ],
)
def test_options_that_contradict_each_other(words, message):
    with pytest.raises(InputError, match=message):
        given_labels(*words)


def test_two_sets_of_names_contradict_each_other():
    statements = stated({"classes": ["left", "right"], "class_names": ["up", "down"]}, "model.pth")
    with pytest.raises(CheckpointError, match="Contradictory class orders"):
        decide(statements, (), "model.pth", 2)
    statements = stated({"classes": ["CN", "AD"], "class_names": ["AD", "normal"]}, "model.pth")
    with pytest.raises(CheckpointError, match="Contradictory class orders"):
        decide(statements, (), "model.pth", 2)
    assert decide(stated({"a": 1, "classes": np.array(["AD", "CN"])}, "m"), (), "m", 2).labels == ("AD", "CN")
