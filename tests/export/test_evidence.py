"""What artifacts are compared on: held-out slices, more phantoms, or the user's images; a substitute is always said."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stageproof.export.data.comparison import GIVEN, HELD_OUT, PHANTOMS, comparison, distinct
from stageproof.export.data.evaluation_set import EvaluationSet
from stageproof.export.data.run_data import training_samples
from stageproof.export.options import Options
from stageproof.export.parity.reference_answers import gather
from stageproof.runtime.bundle.manifest import ModelInfo
from stageproof.runtime.errors import CheckpointError, InputError, ParityError
from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.runtime.preprocess import InputSpec
from stageproof.train.data.phantom.__main__ import phantom_samples
from tests.export.test_preconditions import make_run, write_images


@pytest.fixture(autouse=True)
def small_phantoms(monkeypatch):
    """Phantoms of 32 × 32: what is tested is which they are."""
    from stageproof.export.data import comparison as compared_on
    from stageproof.export.data import run_data

    for module in (compared_on, run_data):
        monkeypatch.setattr(module, "phantom_samples", partial(phantom_samples, size=32))
    run_data._population.cache_clear()
    yield
    run_data._population.cache_clear()


@pytest.fixture
def data(tmp_path) -> Path:
    return write_images(tmp_path / "data", 60)


@pytest.fixture
def trained(tmp_path, data) -> Path:
    return make_run(tmp_path / "runs" / "one", data, 0, 20)


def test_slices_held_out_where_the_data_is_as_it_was(trained, data):
    found = comparison(trained, 512)
    assert (found.kind, found.warning) == (HELD_OUT, "")
    assert len(found.samples) == 20
    assert found.digest == json.loads((trained / "run.json").read_text())["data"]["digest"]


@pytest.mark.parametrize("change", ["moved", "a file added", "a file changed", "a file gone", "a label changed"])
def test_data_that_is_gone_or_changed_is_never_replaced_in_silence(trained, data, change):
    comparison(trained, 20)  # found once, and not remembered beyond the change
    first = sorted(data.rglob("*.png"))[0]
    if change == "moved":
        data.rename(data.with_name("elsewhere"))
    elif change == "a file added":
        shutil.copy(first, first.with_name("another.png"))
    elif change == "a file changed":
        shutil.copy(sorted(data.rglob("*.png"))[1], first)
    elif change == "a file gone":
        first.unlink()
    else:
        first.rename(data / LABELS[3] / first.name)
    found = comparison(trained, 20)
    assert found.kind == PHANTOMS
    assert found.warning.startswith("WARNING: the data of one ")
    assert "artifacts are compared on synthetic phantoms instead" in found.warning
    assert found.facts()["warning"] == found.warning
    samples, why = training_samples(trained, 20)
    assert samples is None
    assert why in found.warning


def test_data_that_moved_is_the_runs_own_where_its_digest_says_so(trained, data, tmp_path):
    data.rename(tmp_path / "elsewhere")
    found = comparison(trained, 512, tmp_path / "elsewhere")
    assert (found.kind, found.warning, len(found.samples)) == (HELD_OUT, "", 20)
    samples, why = training_samples(trained, 512, tmp_path / "elsewhere")
    assert (len(samples), why) == (40, "")


def test_other_data_is_given_and_its_digest_recorded(trained, data, tmp_path):
    from stageproof.train.data.sources.source import load_samples

    other = write_images(tmp_path / "other", 30)
    found = comparison(trained, 512, other)
    assert (found.kind, found.warning, len(found.samples)) == (GIVEN, "", 30)
    assert found.facts()["digest"] == load_samples(other).digest()
    data.rename(tmp_path / "elsewhere")
    found = comparison(trained, 512, other)
    assert f"artifacts are compared on {other} instead" in found.warning


def test_a_relative_path_of_an_older_run_is_found_from_another_folder(tmp_path, data, monkeypatch):
    run = make_run(tmp_path / "runs" / "one", data, 0, 20)
    record = json.loads((run / "run.json").read_text())
    record["options"]["data"] = "data"
    (run / "run.json").write_text(json.dumps(record))
    (tmp_path / "far" / "away").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "far" / "away")
    assert comparison(run, 512).kind == HELD_OUT
    assert comparison(Path(os.path.relpath(run)), 512).kind == HELD_OUT


def test_a_checkpoint_names_no_data_and_that_is_said():
    found = comparison(None, 32)
    assert found.kind == PHANTOMS
    assert "a checkpoint names no data; artifacts are compared on synthetic phantoms" in found.warning


def test_phantoms_of_people_who_were_never_seen_fill_up_the_held_out_ones(tmp_path):
    run = make_run(tmp_path / "run", None, 0, 0)
    names = [f"phantom-0/{LABELS[0]}/p{index * 4:03d}_s0.png" for index in range(5)]
    rows = [f"{name},{LABELS[0]},{name},validation" for name in names]
    (run / "split.csv").write_text("\n".join(["name,label,patient,side", *rows]) + "\n")
    found = comparison(run, 40)
    assert (found.kind, found.warning, len(found.samples)) == (HELD_OUT, "", 40)
    assert list(found.samples.names[:5]) == names
    people = {Path(name).name.split("_")[0] for name in found.samples.names[5:]}
    assert all(int(person[1:]) >= 24 * 4 for person in people), "none of the 96 people of the run"
    assert len(set(found.samples.labels.tolist())) == 4
    assert len({found.samples.read(index) for index in range(40)}) == 40
    assert found.samples.source.endswith("with 35 of additional phantom patients")


def test_a_run_without_its_split_is_one_clear_line(trained):
    (trained / "split.csv").unlink()
    with pytest.raises(CheckpointError, match=r"split.csv cannot be read"):
        comparison(trained, 20)


class Fake:
    """A reference that answers by the mean of the image: brighter is another class."""

    run = None
    info = ModelInfo("fake", "0" * 64, LABELS, FOUR_STAGES, InputSpec(8, 8, 1, (0.0,), (1.0,)))

    def __init__(self, answers: int = 4):
        self.answers = answers

    def logits(self, images):
        level = (images.mean((1, 2, 3)) * 255).round().astype(int)
        return np.eye(4, dtype=np.float32)[level % self.answers] * 5


def test_equal_images_count_once(tmp_path, said):
    data = write_images(tmp_path / "data", 40)
    for path in list(data.rglob("*.png")):
        for copy in range(5):
            shutil.copy(path, path.with_name(f"{path.stem}-{copy}.png"))
    evaluation_set = gather(Options(parity_data=data), Fake(), ["fp32"])
    assert len(evaluation_set.images) == 40 == len(evaluation_set.kept)
    assert evaluation_set.facts["repeated"] == 200
    assert any(line.startswith("200 of 240 images of ") for line in said)
    with pytest.raises(InputError, match="bf16 cannot pass on 40 images"):
        gather(Options(parity_data=data), Fake(), ["bf16"])


def test_three_images_many_times_over_show_nothing(tmp_path):
    data = write_images(tmp_path / "data", 3)
    for path in list(data.rglob("*.png")):
        for copy in range(170):
            shutil.copy(path, path.with_name(f"{path.stem}-{copy}.png"))
    with pytest.raises(InputError, match="has 3 distinct comparison images; at least 14 are needed"):
        gather(Options(parity_data=data), Fake(), ["fp32"])


def test_a_reference_that_gives_one_answer_is_refused(tmp_path):
    data = write_images(tmp_path / "data", 40)
    with pytest.raises(ParityError, match=r"the reference predicts NonDemented for 100.0% of 40 .*Nothing was built"):
        gather(Options(parity_data=data), Fake(answers=1), ["fp32"])


def test_a_class_that_is_never_answered_is_said_and_kept(tmp_path, said):
    evaluation_set = gather(Options(parity_data=write_images(tmp_path / "data", 40)), Fake(answers=3), ["fp32"])
    assert any(line.startswith("not tested: ModerateDemented.") for line in said)
    assert evaluation_set.facts["answers"]["ModerateDemented"] == 0
    evaluation_set.save(tmp_path / "work")
    again = EvaluationSet.load(tmp_path / "work")
    assert again.facts == evaluation_set.facts
    assert (again.names, again.kept, again.source) == (evaluation_set.names, evaluation_set.kept, evaluation_set.source)
    assert (again.truth == evaluation_set.truth).all()


def test_data_without_one_of_the_classes_is_compared_on(tmp_path):
    data = write_images(tmp_path / "data", 40)
    shutil.rmtree(data / LABELS[3])
    evaluation_set = gather(Options(parity_data=data), Fake(), ["fp32"])
    assert len(evaluation_set.images) == 30


def test_the_first_of_each_set_of_equals():
    images = np.array([[1, 2], [3, 4], [1, 2], [5, 6], [3, 4]], np.float32)
    assert distinct(images).tolist() == [0, 1, 3]


def test_how_long_it_takes_is_said_only_where_it_is_long(tmp_path, monkeypatch, said):
    from stageproof.export.parity import reference_answers as gathering

    options = Options(parity_data=write_images(tmp_path / "data", 40))
    gather(options, Fake(), ["fp32"])
    assert not any("s left" in line for line in said)
    monkeypatch.setattr(gathering, "LONG_S", -1)
    gather(options, Fake(), ["fp32"])
    assert any("about 0 s left" in line for line in said)
