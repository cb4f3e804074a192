"""What an evaluation on other data says about how its images and people differ from those of the run."""

from __future__ import annotations

import csv
import html
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.guard.ood_guard import fit
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.labels import FOUR_STAGES, LABELS
from stageproof.train.data.phantom.__main__ import draw_slice
from stageproof.train.evaluate.__main__ import main
from stageproof.train.evaluate.populations import populations, warning
from stageproof.train.metrics.classification import class_counts
from stageproof.train.reports.populations import explained, rows
from stageproof.train.runs.record import read_record
from stageproof.train.test_set.held_out import held_out
from tests.train.copied_runs import copied, rewritten, slices_of


def write_others(folder: Path, classes: list[str], changed) -> Path:
    """A CSV file of 6 other people of each class, two slices each, with age and sex; `changed` alters the pixels."""
    lines = ["path,label,patient,age,sex"]
    for label in classes:
        stage = LABELS.index(label)
        for person in range(6):
            for level in (0.4, 0.6):
                path = folder / "images" / f"{label}-{person}-{level}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = draw_slice(stage, 5000 + 100 * stage + person, level, size=48)
                Image.fromarray(np.ascontiguousarray(changed(pixels))).save(path)
                lines.append(f"images/{path.name},{label},{label}{person},{60 + person},{'FM'[person % 2]}")
    (folder / "others.csv").write_text("\n".join(lines) + "\n")
    return folder / "others.csv"


def compared(run: Path, data: Path) -> dict:
    """``populations`` of an evaluation on `data`, without the evaluation."""
    record = read_record(run)
    held = held_out(run, record, data)
    facts = {
        "data": {"slices_by_class": class_counts(held.slices.labels, FOUR_STAGES), "sizes": []},
        "demographics": None,
    }
    found = populations(run, record, held, facts)
    assert found is not None
    assert populations(run, record, replace(held, own=True), facts) is None
    return found


def test_other_images_and_a_class_missing_are_in_the_figures_the_text_and_the_page(small_run, tmp_path, capsys):
    """Bright backgrounds: a protocol that the run has not seen."""
    data = write_others(tmp_path, list(LABELS[:3]), lambda pixels: np.maximum(pixels, 150))
    words = ["--data", str(data), "--out", str(tmp_path / "report"), "--resamples", "200"]
    assert main([str(small_run), *words]) == 0
    said, errors = capsys.readouterr()
    facts = json.loads((tmp_path / "report" / "evaluation.json").read_text(), parse_constant=pytest.fail)
    found = facts["populations"]
    assert found["classes"][LABELS[3]] == {"run": 0.25, "here": 0.0}
    assert found["classes"][LABELS[0]]["here"] == pytest.approx(1 / 3)
    assert found["slices"] == {"run": 144, "here": 36}
    assert found["sizes"]["run"] == [{"width": 48, "height": 48, "slices": 144}]
    guard = found["guard"]
    assert guard["rejected"]["here"] == 1.0
    assert guard["scores"]["border"]["here"]["above"] == 1.0
    assert guard["scores"]["border"]["here"]["median"] > guard["scores"]["border"]["limit"]
    assert "ANOTHER POPULATION: 100.0% of these slices are above a limit of the guard" in errors
    # The class that is missing has no figures, the others have.
    assert f"NO SLICE OF {LABELS[3]}" in errors
    missing, present = (facts["slices"]["classes"][LABELS[stage]]["recall"] for stage in (3, 0))
    assert missing["value"] is None
    assert "not estimable" in missing["why"]
    assert present["value"] is not None
    # Ages and sexes of these people; the run has none.
    assert found["patients"]["run"] is None
    assert found["patients"]["here"]["age"]["mean"] == pytest.approx(62.5)
    assert found["patients"]["here"]["sex"]["female"] == 9
    # The terminal and the page show the same.
    assert max(map(len, said.partition("\nreport ")[0].splitlines())) <= 80
    page = (tmp_path / "report" / "report.html").read_text().replace("\N{NO-BREAK SPACE}", " ")
    for name, of_run, here in rows(found):
        cells = "".join(f"<td>{html.escape(cell)}</td>" for cell in (name, of_run, here))
        assert cells in page
        assert name.split(",")[0][:20] in said
    assert html.escape(explained(found)) in page


def test_images_like_those_of_the_run_are_no_other_population(small_run, tmp_path):
    found = compared(small_run, write_others(tmp_path, list(LABELS), lambda pixels: pixels))
    guard = found["guard"]
    assert guard["scored"] == {"run": 72, "here": 48}
    assert guard["fitted_on"] == {**guard["fitted_on"], "images": 72.0, "groups": 24.0}
    assert warning(found) == []
    guard["rejected"] = {"run": 0.01, "here": 0.07}
    assert warning(found)[0].startswith("ANOTHER POPULATION: 7.0% of these slices")
    assert warning(None) == []


def test_scores_are_those_of_the_guard_of_a_bundle(small_run, tmp_path):
    data = write_others(tmp_path, list(LABELS), lambda pixels: pixels)
    held = held_out(small_run, read_record(small_run), data)
    found = compared(small_run, data)["guard"]
    with (small_run / "split.csv").open(newline="") as file:
        training = [row for row in csv.DictReader(file) if row["side"] == "training"]
    folder = slices_of(small_run)
    images = [read_image((folder / row["name"]).read_bytes()) for row in training]
    guard = fit(images, [row["patient"] for row in training])
    scored = [guard.scores(read_image(held.samples.read(at))) for at in range(48)]
    for code, one in found["scores"].items():
        values = [row[code] for row in scored]
        assert one["limit"] == pytest.approx(guard.thresholds[code], rel=1e-4)
        assert one["here"]["above"] == np.mean([value > guard.thresholds[code] for value in values])
        assert one["here"]["median"] == pytest.approx(np.median(values), rel=1e-4)
    assert found["rejected"]["here"] == np.mean([guard.judge(row) is not None for row in scored])


def test_without_the_data_of_the_run_the_images_are_not_compared(small_run, tmp_path):
    run = copied(small_run, tmp_path)
    rewritten(run, lambda record: record["options"].update(data=str(tmp_path / "gone")))
    found = compared(run, write_others(tmp_path / "other", list(LABELS), lambda pixels: pixels))
    assert found["guard"] is None
    assert found["sizes"]["run"] is None
    assert explained(found) == "The images were not compared: the data of the run no longer exists or has changed."
    assert rows(found)[0] == ("slices", "144", "48")


def test_on_its_own_slices_a_run_has_no_other_population(evaluated):
    facts = json.loads((evaluated / "evaluation" / "evaluation.json").read_text())
    assert facts["populations"] is None
