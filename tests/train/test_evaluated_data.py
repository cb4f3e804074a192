"""The slices that `python -m train.evaluate` judges a run on: its own, whole and unchanged, or those of strangers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.labels import LABELS
from stageproof.train.evaluate.__main__ import main
from stageproof.train.runs.record import read_record
from stageproof.train.test_set.held_out import held_out
from tests.train.copied_runs import contents, copied, dealt, rewritten, slices_of

pytestmark = pytest.mark.usefixtures("drawn_once")


def test_data_that_changed_since_the_run_is_refused(small_run, tmp_path, capsys):
    run, data = copied(small_run, tmp_path), tmp_path / "slices"
    shutil.copytree(slices_of(small_run), data, copy_function=os.link)
    rewritten(run, lambda record: record["options"].update(data=str(data)))
    one, other = sorted((data / "MildDemented").iterdir())[:2]
    pixels = other.read_bytes()
    one.unlink()
    one.write_bytes(pixels)
    before = contents(run)
    for arguments in ([], ["--data", str(data)]):
        assert main([str(run), *arguments]) == 2
        assert "has changed since" in capsys.readouterr().err
    shutil.rmtree(data)
    assert main([str(run)]) == 2
    assert f"Give its new path: python -m train.evaluate {run} --data DIR_OR_PARQUET" in capsys.readouterr().err
    assert contents(run) == before


def test_the_runs_own_data_from_another_place_is_its_own(small_run, tmp_path):
    data = Path(shutil.copytree(slices_of(small_run), tmp_path / "moved"))
    here, there = (held_out(small_run, read_record(small_run), where) for where in (None, data))
    assert there.own is True
    assert there.slices.names == here.slices.names
    assert np.array_equal(there.patients, here.patients)


def write_ids(path: Path, names: list[str], who) -> Path:
    path.write_text("file,group\n" + "".join(f"{name},{who(name)}\n" for name in names))
    return path


def test_a_file_says_who_is_who_among_the_slices_held_out(small_run, tmp_path, capsys):
    """It knows that persons 1 and 3 are one, and that person 0 of the training slices is person 5."""
    data = slices_of(small_run)
    names = [file.relative_to(data).as_posix() for file in sorted(data.rglob("*.png"))]
    same = {"p003": "p001", "p000": "p005"}

    def who(name: str) -> str:
        person = name.rpartition("/")[2][:4]
        return same.get(person, person)

    run = copied(small_run, tmp_path)
    ids = write_ids(tmp_path / "ids.csv", names, who)
    assert main([str(run), "--groups", str(ids), "--resamples", "200", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert facts["data"]["patients"] == 23
    assert facts["data"]["patients_told_by"] == "file"
    assert facts["data"]["leaked"] == pytest.approx(1 / 24)
    assert "LEAKAGE" in facts["warnings"][0]
    missing = write_ids(tmp_path / "some.csv", names[1:], who)
    before = contents(run)
    assert main([str(run), "--groups", str(missing)]) == 2
    assert "without a row" in capsys.readouterr().err
    assert contents(run) == before


def test_a_file_says_who_is_who_in_other_data(small_run, tmp_path, capsys):
    from stageproof.train.data.phantom.__main__ import draw_slice

    names = []
    for stage, label in enumerate(LABELS):
        (tmp_path / "slices" / label).mkdir(parents=True)
        for person in range(3):
            for level in (0.4, 0.6):
                names.append(f"{label}/{person}_{level}.png")
                pixels = draw_slice(stage, 700 + 10 * stage + person, level, size=48)
                Image.fromarray(pixels).save(tmp_path / "slices" / names[-1])
    ids = write_ids(tmp_path / "ids.csv", names, lambda name: name.rpartition("_")[0])
    words = ["--data", str(tmp_path / "slices"), "--groups", str(ids), "--out", str(tmp_path / "report")]
    assert main([str(small_run), *words, "--resamples", "200", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["data"]
    assert told["patients"] == 12
    assert told["patients_by_class"] == dict.fromkeys(LABELS, 3)
    assert told["patients_told_by"] == "file"


def test_weights_that_changed_since_the_run_are_refused(small_run, tmp_path, capsys):
    run = copied(small_run, tmp_path)
    rewritten(run, lambda record: record.update(weights_sha256="0" * 64))
    assert main([str(run)]) == 2
    assert "the weights were changed after training" in capsys.readouterr().err


def test_the_runs_own_slices_under_another_name_are_not_new(small_run, tmp_path, capsys):
    data = tmp_path / "slices"
    for number, file in enumerate(sorted(slices_of(small_run).rglob("*.png"))[::5]):
        (data / file.parent.name).mkdir(parents=True, exist_ok=True)
        with Image.open(file) as image:  # other bytes, the same pictures
            image.save(data / file.parent.name / f"{number}.jpg", quality=90)
    assert main([str(small_run), "--data", str(data), "--out", str(tmp_path / "report")]) == 2
    assert "shows a patient in the data of" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_of_other_data_only_strangers_are_judged_and_the_run_stays_as_it_is(small_run, phantoms, tmp_path, capsys):
    data = tmp_path / "slices"
    shutil.copytree(slices_of(small_run), data, ignore=lambda where, names: [n for n in names if n.startswith("p0")])
    for index, name in enumerate(phantoms.names):
        (data / LABELS[phantoms.labels[index]] / f"new_{Path(name).name}").write_bytes(phantoms.read(index))
    before = contents(small_run)
    arguments = ["--data", str(data), "--out", str(tmp_path / "report"), "--resamples", "200"]
    assert main([str(small_run), *arguments]) == 0
    found = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert found["data"]["held_out_by_run"] is False
    assert found["data"]["left_out_as_seen"] == 108
    assert found["data"]["slices"] == 96
    assert "108 slices were left out" in capsys.readouterr().err
    assert contents(small_run) == before
    # Names such as new_p000_s1.png have ids, of which nobody knows whether they are people.
    assert found["data"]["verdict"] == "groups"
    assert found["data"]["groups"] == 24
    assert found["data"]["patients"] is found["patients"] is None
    assert found["slices"]["accuracy"]["groups"] == 24
    assert found["slices"]["accuracy"]["low"] is not None
    assert "GROUPS, NOT PATIENTS" in " ".join(found["warnings"])
    shutil.rmtree(tmp_path / "report")
    assert main([str(small_run), *arguments, "--target-risk", "0.1"]) == 2
    assert "--data gives other slices" in capsys.readouterr().err


def test_other_data_is_not_trusted_when_the_runs_own_is_gone(small_run, tmp_path, capsys):
    run = copied(small_run, tmp_path)
    rewritten(run, lambda record: record["options"].update(data=str(tmp_path / "gone")))
    data = tmp_path / "slices"
    shutil.copytree(slices_of(small_run), data, ignore=shutil.ignore_patterns("p001*"))
    assert main([str(run), "--data", str(data), "--out", str(tmp_path / "report"), "--resamples", "200"]) == 0
    assert "NOT CHECKED" in capsys.readouterr().err


def test_a_split_by_slice_is_shouted_and_not_calibrated(small_run, tmp_path, capsys):
    run = copied(small_run, tmp_path)
    dealt(run, lambda position: "validation" if position % 5 == 0 else "training")
    assert main([str(run), "--resamples", "200"]) == 1
    said = capsys.readouterr()
    assert "LEAKAGE: 100% of these slices show a patient of the training set" in said.err
    assert read_record(run)["temperature"] == 1
    card = (run / "MODEL_CARD.md").read_text()
    assert "> **LEAKAGE: 100% of these slices" in card
    assert main([str(run), "--target-risk", "0.5"]) == 2
    assert "this run held out no patients" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["patients_told_by", "digest"])
def test_a_record_that_lacks_what_is_needed_is_refused(small_run, tmp_path, capsys, key):
    run = copied(small_run, tmp_path)
    rewritten(run, lambda record: record["data"].pop(key))
    assert main([str(run)]) == 2
    assert f"has no data.{key}" in capsys.readouterr().err


def test_a_run_whose_patients_nobody_knows_gets_figures_without_intervals_and_a_card_that_says_so(
    small_run, tmp_path, capsys
):
    run = copied(small_run, tmp_path)
    rewritten(run, lambda record: record["data"].update(patients_told_by="nothing", patients=None))
    assert main([str(run), "--resamples", "200"]) == 0
    said = capsys.readouterr()
    assert "PATIENTS UNKNOWN" in said.err
    assert "[" not in said.out.partition("report")[0]
    card = (run / "MODEL_CARD.md").read_text()
    assert "The patients are unknown" in card
    assert "accuracy (slices, patients unknown)" in card
    assert "an unknown number of patients" in (run / "DATASET_CARD.md").read_text()
    assert main([str(run), "--target-risk", "0.5"]) == 2


def test_a_run_without_its_split_is_refused(small_run, tmp_path, capsys):
    run = copied(small_run, tmp_path)
    (run / "split.csv").unlink()
    assert main([str(run)]) == 2
    assert "without which the run cannot be evaluated on its own data" in capsys.readouterr().err


def test_nobody_stands_on_both_sides(small_run):
    held = held_out(small_run, read_record(small_run), None)
    assert sorted(np.unique(held.patients)) == list(range(24))
    assert not set(held.patients) & set(held.training_patients)
    assert len(np.unique(np.concatenate([held.patients, held.training_patients]))) == 48
    assert held.leaked == 0
    assert held.sizes == ((48, 48, 72),)
