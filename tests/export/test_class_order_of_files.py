"""From a file to the order of its classes: checkpoints of other code, and a run's weights wherever they are taken."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from stageproof.export.bundle.card import model_card
from stageproof.export.options import Options
from stageproof.export.reference.source import load_reference
from stageproof.runtime.errors import CheckpointError, InputError
from stageproof.runtime.labels import ALPHABETICAL, ASSUMED, LABELS

ORDERS = list(itertools.permutations(LABELS))
SOME = ORDERS[::5]


class Tiny(nn.Module):
    def __init__(self, classes: int = 4, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2, 3)
        self.fc = nn.Linear(2, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv1(images).mean((2, 3)))


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    from stageproof.train.networks import ARCHITECTURES

    monkeypatch.setitem(ARCHITECTURES, "tiny", Tiny)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return Tiny().state_dict()


def loaded(source: Path, **more):
    return load_reference(Options(source=source, architecture="tiny", image_size=16, **more))


def write_run(folder: Path, state: dict[str, torch.Tensor], labels=LABELS, metadata: bool = True) -> Path:
    """A run as `python -m train` writes it; without metadata, as version 0.1 wrote it."""
    from stageproof.runtime.preprocess import InputSpec
    from stageproof.runtime.serialization.digests import sha256_file
    from stageproof.train.runs.directory import WEIGHTS
    from stageproof.train.runs.record import write_record

    folder.mkdir(parents=True)
    save_file(state, folder / WEIGHTS, {"format": "pt", "labels": json.dumps(labels)} if metadata else None)
    record = {
        "architecture": "tiny",
        "labels": list(labels),
        "input": InputSpec.imagenet(24).to_dict(),
        "temperature": 1.5,
        "weights_sha256": sha256_file(folder / WEIGHTS),
        "options": {"data": None, "seed": 0},
        "data": {"digest": "0", "source": "phantom"},
        "split": {"by": "patient"},
        "metrics": {},
        "versions": {},
    }
    write_record(record, folder)
    return folder


@pytest.mark.parametrize("order", SOME)
def test_a_dictionary_a_safetensors_file_and_a_file_beside_say_the_order(tmp_path, state, order):
    indices = {name: at for at, name in enumerate(order)}
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "class_to_idx": indices}, "a.pth")
    torch.save({**state, "classes": list(order)}, "b.pth")
    save_file(state, "c.safetensors", {"idx_to_class": json.dumps(dict(enumerate(order)))})
    torch.save(state, "d.pth")
    for name in ("a.pth", "b.pth", "c.safetensors"):
        reference = loaded(Path(name))
        assert (reference.info.labels, reference.order.origin) == (order, "checkpoint")
        assert name in str(reference.order)
    Path("class_to_idx.json").write_text(json.dumps(indices))
    assert loaded(Path("d.pth")).info.labels == order
    other = list(reversed(order))
    with pytest.raises(InputError, match="Contradictory class orders"):
        loaded(Path("a.pth"), labels=tuple(other))
    torch.save({"state_dict": state, "class_names": other}, "e.pth")
    with pytest.raises(CheckpointError, match=r"class_names in e\.pth: .*\n.*class_to_idx\.json"):
        loaded(Path("e.pth"))


def test_without_any_statement_it_is_assumed_and_the_card_says_so(state):
    torch.save(state, "a.pth")
    reference = loaded(Path("a.pth"))
    assert (reference.info.labels, reference.order.origin) == (ALPHABETICAL, ASSUMED)
    card = model_card(reference)
    assert card is not None
    assert "**The order of the classes is assumed alphabetical.**" in card.decode()
    given = loaded(Path("a.pth"), labels=("no impairment", "Very Mild Impairment", "mild_dementia", "ModerateDemented"))
    assert (given.info.labels, given.order.origin) == (LABELS, "option")
    card = model_card(given)
    assert card is not None
    assert "assumed" not in card.decode()
    assert "| 0 | NonDemented |" in card.decode()


@pytest.mark.parametrize("labels", [LABELS, *SOME[:2]])
@pytest.mark.parametrize("metadata", [True, False], ids=["now", "0.1"])
def test_a_runs_weights_keep_their_order_on_every_way(tmp_path, state, labels, metadata):
    run = write_run(tmp_path / "runs" / "a", state, labels, metadata)
    weights = run / "model.safetensors"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    ways = [
        run,
        weights,
        Path(shutil.copy(weights, elsewhere / "best.safetensors")),
        elsewhere / "b.pth",
        run / "c.pth",
    ]
    torch.save({f"module.{name}": tensor for name, tensor in load_file(weights).items()}, elsewhere / "b.pth")
    torch.save({"state_dict": load_file(weights)}, run / "c.pth")
    ways.append(elsewhere / "d.safetensors")
    save_file({f"module.{name}": tensor for name, tensor in load_file(weights).items()}, elsewhere / "d.safetensors")
    for way in ways:
        reference = loaded(way)
        assert (reference.info.labels, reference.order.origin) == (labels, "run"), way
        assert (reference.info.input.height, reference.info.temperature) == (24, 1.5)
        with pytest.raises(InputError, match=r"--labels is .*Leave --labels out"):
            loaded(way, labels=tuple(reversed(labels)))
        assert loaded(way, labels=labels).info.labels == labels


def test_a_copy_far_from_its_run_has_the_order_in_it(tmp_path, state, monkeypatch):
    run = write_run(tmp_path / "far" / "a", state)
    shutil.copy(run / "model.safetensors", tmp_path / "w.safetensors")
    reference = loaded(tmp_path / "w.safetensors")
    assert (reference.info.labels, reference.order.origin) == (LABELS, "checkpoint")
    with pytest.raises(InputError, match=r"labels in w\.safetensors"):
        loaded(tmp_path / "w.safetensors", labels=ALPHABETICAL)


def test_training_writes_the_order_into_the_weights(tmp_path):
    from stageproof.train.foreign.weight_files import read_weights
    from stageproof.train.runs.directory import save_weights

    save_weights(Tiny(), tmp_path, LABELS)
    assert json.loads(read_weights(tmp_path / "model.safetensors").beside["labels"]) == list(LABELS)


def test_other_weights_in_a_runs_folder_are_not_assumed_to_be_alphabetical(tmp_path, state):
    run = write_run(tmp_path / "a", state, metadata=False)
    torch.save({name: tensor + 1 for name, tensor in state.items()}, run / "tuned.pth")
    with pytest.raises(CheckpointError, match=r"tuned\.pth does not state .*run\.json beside it.*--labels"):
        loaded(run / "tuned.pth")
    assert loaded(run / "tuned.pth", labels=ALPHABETICAL).info.labels == ALPHABETICAL


def test_a_hint_at_another_order_keeps_from_assuming_one(state):
    torch.save({"state_dict": state, "plot_order": list(LABELS)}, "a.pth")
    with pytest.raises(CheckpointError, match=r"may not be alphabetical: plot_order in a\.pth: NonDemented.*--labels"):
        loaded(Path("a.pth"))
    assert loaded(Path("a.pth"), labels=ALPHABETICAL).info.labels == ALPHABETICAL
    torch.save({"state_dict": state, "plot_order": list(LABELS), "classes": list(ALPHABETICAL)}, "b.pth")
    assert loaded(Path("b.pth")).info.labels == ALPHABETICAL
    Path("run.json").write_text('{"id": "of another program"}')
    torch.save({"state_dict": state, "plot_order": list(ALPHABETICAL)}, "c.pth")
    assert loaded(Path("c.pth")).order.origin == ASSUMED


def test_the_checkpoint_of_an_unfinished_run(tmp_path, state):
    folder = tmp_path / ".a.partial"
    folder.mkdir()
    torch.save({"schema": 1, "model_state_dict": state, "stage": 0}, folder / "checkpoint.pt")  # of version 0.1
    with pytest.raises(CheckpointError, match=r"a run that is not finished\. Finish the run with --resume"):
        loaded(folder / "checkpoint.pt")
    torch.save({"schema": 1, "model_state_dict": state, "labels": list(LABELS)}, folder / "checkpoint.pt")
    assert loaded(folder / "checkpoint.pt").info.labels == LABELS


def test_a_runs_record_and_its_weights_must_agree(tmp_path, state):
    run = write_run(tmp_path / "a", state)
    record = json.loads((run / "run.json").read_text())
    record["labels"] = list(ALPHABETICAL)
    (run / "run.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"run\.json has the classes MildDemented, .*NonDemented, VeryMild"):
        loaded(run)


def test_a_copy_of_a_control_is_a_control(tmp_path, state):
    run = write_run(tmp_path / "runs" / "a", state)
    record = json.loads((run / "run.json").read_text())
    record["split"]["shuffled_labels"] = 1
    (run / "run.json").write_text(json.dumps(record))
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="is a control"):
        loaded(tmp_path / "b.pth")


def test_a_head_of_another_width_than_the_names(tmp_path, state):
    torch.save({"state_dict": state, "classes": list(LABELS[:3])}, "a.pth")
    with pytest.raises(CheckpointError, match=r"names 3 classes .*has 4 outputs"):
        loaded(Path("a.pth"))
    wide = {**state, "fc.weight": torch.ones(5, 2), "fc.bias": torch.ones(5)}
    torch.save({"state_dict": wide, "classes": list(LABELS)}, "b.pth")
    with pytest.raises(CheckpointError, match=r"names 4 classes .*has 5 outputs"):
        loaded(Path("b.pth"))
