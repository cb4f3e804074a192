"""Cards: every number on them stands in the JSON it came from, and a missing one is an error."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import DatasetCard, ModelCard

from stageproof.runtime.labels import LABELS
from stageproof.train.cards.cards import dataset_card, model_card
from stageproof.train.evaluate.__main__ import main
from stageproof.train.reports.facts import CardError
from stageproof.train.reports.formatting import format_figure

NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?")


@pytest.fixture(scope="module")
def sources(evaluated) -> tuple[Path, dict, dict]:
    """The evaluated run, its `run.json` with energy as `--energy` would add it, and its `evaluation.json`."""
    record = json.loads((evaluated / "run.json").read_text())
    record["energy"] = {
        "energy_kwh": 0.0123,
        "co2_kg": 0.0045,
        "seconds": 61.5,
        "country": "DEU",
        "estimated_by": "codecarbon 3.3.2",
    }
    record["data"] |= {"patients_told_by": "pixels"}
    record["data"]["similarity"] = {"verdict": "patients", "below": 0.9765, "above": 0.9889, "error": 0.001}
    return evaluated, record, json.loads((evaluated / "evaluation" / "evaluation.json").read_text())


def leaves(content: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    if not isinstance(content, (dict, list)):
        yield path, content
    for key, value in items:
        yield from leaves(value, (*path, key))


def one_of_each_kind(content: Any) -> list[tuple]:
    """Paths of leaves that differ in more than the class or the place in a list; of every kind one, the classes and
    places taking turns, so that none of them is always left out."""
    kinds: dict[tuple, list[tuple]] = {}
    for path, _ in leaves(content):
        kind = tuple("class" if key in LABELS else "place" if isinstance(key, int) else key for key in path)
        kinds.setdefault(kind, []).append(path)
    return [paths[at % len(paths)] for at, paths in enumerate(kinds.values())]


def replaced(content: Any, path: tuple, value: Any) -> Any:
    """The content with another value, or none, at the path; all else is shared with it."""
    new, (key, *rest) = copy.copy(content), path
    if rest:
        new[key] = replaced(content[key], tuple(rest), value)
    elif value is KeyError:
        del new[key]
    else:
        new[key] = value
    return new


def renditions(value: float) -> set[str]:
    if isinstance(value, int):
        return {str(value), f"{100.0 * value:.1f}", f"{value:.3f}"}
    shown = {f"{value:.{digits}f}" for digits in (0, 1, 3, 4)} | {f"{100 * value:.1f}", repr(value)}
    return {one.lstrip("-") for one in shown}


def numbers(card: str, *contents: Any) -> list[str]:
    """The numbers of a card, apart from those inside texts of the JSON (versions, dates, names, digests)."""
    texts = {value for content in contents for _, value in leaves(content) if isinstance(value, str)}
    for text in sorted(texts | set(LABELS), key=len, reverse=True):
        card = card.replace(text, "")
    return NUMBER.findall(card)


def disguised(record: dict, facts: dict, seed: int) -> tuple[dict, dict]:
    """The same JSON with every number replaced by one of its own."""
    rng = np.random.default_rng(seed)
    pair = copy.deepcopy((record, facts))
    counts = iter(rng.permutation(np.arange(1000, 9000)).tolist())
    shares = iter(((rng.permutation(8000) + 1000) / 10_000).tolist())
    for content in pair:
        for path, value in list(leaves(content)):
            place = content
            for key in path[:-1]:
                place = place[key]
            if isinstance(value, float):
                place[path[-1]] = next(shares)
            elif isinstance(value, int) and not isinstance(value, bool):
                place[path[-1]] = next(counts)
    return pair


@pytest.mark.parametrize("make", [model_card, dataset_card])
def test_every_number_comes_from_the_json(sources, make):
    _, record, facts = sources
    card = make(record, facts)
    found = numbers(card, record, facts)
    assert len(found) > 10
    known = set().union(*(renditions(v) for c in (record, facts) for _, v in leaves(c) if isinstance(v, (int, float))))
    assert [number for number in found if number not in known] == []


@pytest.mark.parametrize("make", [model_card, dataset_card])
def test_no_number_is_written_into_the_prose(sources, make):
    """With other numbers in the JSON every number of the card is another, and again one of the JSON's."""
    _, record, facts = sources
    seen: dict[str, list[list[str]]] = {}
    for seed in range(6):
        pair = disguised(record, facts, seed)
        card = make(*pair)
        known = set().union(*(renditions(v) for c in pair for _, v in leaves(c) if isinstance(v, (int, float))))
        assert [number for number in numbers(card, *pair) if number not in known] == []
        for line in card.splitlines():
            found = numbers(line, *pair)
            if found:
                seen.setdefault(NUMBER.sub("#", line), []).append(found)
    compared = 0
    for line, found in seen.items():
        if len(found) == 6:
            compared += 1
            assert all(len(set(column)) > 1 for column in zip(*found, strict=True)), line
    assert compared > (20 if make is model_card else 6)


def test_figures_stand_where_they_belong(sources):
    _, record, facts = sources
    card = model_card(record, facts)
    for name, path in (("accuracy", "accuracy"), ("quadratic-weighted kappa", "kappa")):
        figures = [facts[level][path] for level in ("slices", "patients")]
        cells = [format_figure(figure, path == "accuracy") for figure in figures]
        assert f"| {name} | {cells[0]} | {cells[1]} | {figures[1]['patients']} |" in card
    trained, held = facts["data"]["training"], facts["data"]
    for label in LABELS:
        share = f"{100 * trained['share_by_class'][label]:.1f} %"
        people = f"{trained['patients_by_class'][label]} | {held['patients_by_class'][label]}"
        assert f"| {label} | {trained['slices_by_class'][label]} | {share} | {people} |" in card
    flat = " ".join(card.split())
    assert f"divided by {record['temperature']:.3f}" in flat
    assert "0.0123 kWh and 0.0045 kg of carbon dioxide equivalents in 62 seconds" in flat
    data = dataset_card(record, facts)
    assert f"{record['data']['slices']} axial brain-MRI slices of {record['data']['patients']} patients" in data
    assert "correlate at most 0.9765, and each slice at least 0.9889" in data


def test_the_front_matter_is_what_the_hub_reads(sources):
    run, _, facts = sources
    model, data = ModelCard.load(run / "MODEL_CARD.md"), DatasetCard.load(run / "DATASET_CARD.md")
    results = {result.metric_name: result.metric_value for result in model.data.eval_results}
    assert results["accuracy (patients)"] == facts["patients"]["accuracy"]["value"]
    assert model.data.pipeline_tag == "image-classification"
    assert data.data.task_categories == ["image-classification"]


def test_nothing_is_left_to_fill_in(sources):
    run, record, facts = sources
    for text in (model_card(record, facts), dataset_card(record, facts), (run / "MODEL_CARD.md").read_text()):
        assert not re.search(r"\bNone\b|\bnan\b|\binf\b|TODO|TBD|\{|\}|More Information|\[\]|placeholder", text)
    card = (run / "MODEL_CARD.md").read_text()
    for words in ("Intended use", "Out of scope", "Not for clinical use", "skull-stripped", "Other diseases"):
        assert words in card
    assert "`python -m train --energy` estimates it" in card


@pytest.mark.parametrize("make", [model_card, dataset_card])
def test_a_missing_figure_is_an_error_and_never_a_gap(sources, make):
    """Whatever kind of leaf is taken away: the card is refused, or it did not use it."""
    _, record, facts = sources
    whole = make(record, facts)
    refused = 0
    skipped = {"reliability", "risk", "confusion", "recipe", "options", "versions"}
    for which, content in enumerate((record, facts)):
        for path in one_of_each_kind(content):
            if skipped & set(path) or not isinstance(path[-1], str):
                continue
            pair = [record, facts]
            pair[which] = replaced(content, path, KeyError)
            try:
                assert make(*pair) == whole, path
            except CardError:
                refused += 1
    assert refused > (80 if make is model_card else 20)


@pytest.mark.parametrize(
    "path",
    [
        ("slices", "accuracy", "value"),
        ("patients", "positive", "auc", "low"),
        ("calibration", "after", "ece", "value"),
        ("control", "permutation", "p"),
        ("slices", "classes", "NonDemented", "recall", "value"),
    ],
)
@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_figure_that_is_no_number_is_refused(sources, path, value):
    _, record, facts = sources
    with pytest.raises(CardError, match="no card can say"):
        model_card(record, replaced(facts, path, value))


@pytest.mark.usefixtures("drawn_once")
def test_a_run_without_its_figures_gets_no_card_and_stays_as_it_is(sources, tmp_path, capsys):
    run = Path(shutil.copytree(sources[0], tmp_path / "run", copy_function=os.link))
    record = json.loads((run / "run.json").read_text())
    del record["recipe"]
    (run / "run.json").unlink()
    (run / "run.json").write_text(json.dumps(record))
    shutil.rmtree(run / "evaluation")
    before = (run / "MODEL_CARD.md").read_bytes()
    assert main([str(run), "--resamples", "200"]) == 1
    assert "CardError: run.json has no recipe" in capsys.readouterr().err
    assert (run / "MODEL_CARD.md").read_bytes() == before
    assert json.loads((run / "run.json").read_text()) == record
    assert not (run / "evaluation").exists()
