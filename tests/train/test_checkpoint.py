"""Run directories appear whole or not at all; weight files are read without running anything in them."""

from __future__ import annotations

import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import LABELS
from stageproof.train.foreign.weight_files import read_state
from stageproof.train.runs.directory import WEIGHTS, load_weights, new_run, save_weights, with_ordered_header
from stageproof.train.runs.finding import newest_run
from stageproof.train.runs.record import read_record, write_record


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))


def test_a_run_appears_under_its_name_only_when_finished(tmp_path):
    with new_run(tmp_path / "runs" / "a") as folder:
        (folder / "x").write_text("1")
        assert not (tmp_path / "runs" / "a").exists()
    assert (tmp_path / "runs" / "a" / "x").read_text() == "1"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_leaves_nothing(tmp_path, error):
    def stop_halfway() -> None:
        with new_run(tmp_path / "runs" / "a") as folder:
            (folder / "x").write_text("1")
            raise error

    with pytest.raises(error):
        stop_halfway()
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_not_written_over(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(CheckpointError, match=r"a exists already\. Give another --out"), new_run(tmp_path / "a"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be created"), new_run(tmp_path / "file" / "a"):
        pass


def test_safetensors_round_trip(tmp_path):
    model = small()
    save_weights(model, tmp_path, LABELS)
    again = small()
    nn.init.zeros_(again[0].weight)
    load_weights(again, read_state(tmp_path / WEIGHTS), "here")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_channels_last_weights_are_written_in_their_logical_order(tmp_path):
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    save_weights(model, tmp_path, LABELS)
    assert torch.equal(read_state(tmp_path / WEIGHTS)["weight"], model.weight)


@pytest.mark.parametrize("name", ["a.pth", "a.zip", "a.pt"])
@pytest.mark.parametrize("wrap", [None, "state_dict", "model_state_dict"])
def test_only_a_leading_module_is_stripped(tmp_path, name, wrap):
    state = OrderedDict({"module.net.module.weight": torch.ones(2), "module.fc.bias": torch.zeros(1)})
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / name)
    assert list(read_state(tmp_path / name)) == ["net.module.weight", "fc.bias"]


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path, how):
    trace, path = tmp_path / "code-ran", tmp_path / "evil.pth"
    if how == "torch":
        torch.save({"weight": torch.ones(1), "x": _Evil(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"x": _Evil(trace)}, protocol=2))
    with pytest.raises(CheckpointError, match=r"a pickle can run code\. (Save its state dict alone|It was not loaded)"):
        read_state(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.95])
def test_a_truncated_file(tmp_path, name, kept):
    if name.endswith("pth"):
        torch.save(small().state_dict(), tmp_path / name)
    else:
        save_weights(small(), tmp_path, LABELS)
        (tmp_path / WEIGHTS).rename(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(CheckpointError, match=rf"{name} (cannot be read as weights|is empty)"):
        read_state(tmp_path / name)


@pytest.mark.parametrize("content", [torch.ones(2), {}, {"a": 1}, [torch.ones(1)]])
def test_what_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="expected a state dict of tensors"):
        read_state(tmp_path / "a.pth")


def test_a_folder_is_no_weight_file(tmp_path):
    with pytest.raises(CheckpointError, match="is not a file"):
        read_state(tmp_path)


def test_weights_of_another_network_are_named(tmp_path):
    state = small().state_dict()
    del state["0.bias"]
    state["9.weight"] = torch.ones(1)
    state["2.weight"] = torch.ones(3, 2)
    with pytest.raises(CheckpointError) as caught:
        load_weights(small(), state, "f.pth")
    assert "f.pth does not fit Sequential: it lacks 0.bias (1 in all)" in str(caught.value)
    assert "has unknown 9.weight (1 in all)" in str(caught.value)
    assert "2.weight (3, 2) for (2, 2)" in str(caught.value)


def test_weights_that_are_not_finite(tmp_path):
    state = small().state_dict()
    state["2.bias"] = torch.tensor([0.0, float("nan")])
    with pytest.raises(CheckpointError, match=r"2\.bias contains values that are not finite"):
        load_weights(small(), state, "f.pth")


def test_batchnorms_counter_may_be_missing():
    state = {name: tensor for name, tensor in small().state_dict().items() if "num_batches" not in name}
    load_weights(small(), state, "old file")


def test_records(tmp_path):
    with pytest.raises(CheckpointError, match=r"contains no run\.json"):
        read_record(tmp_path)
    write_record({"a": 1}, tmp_path)
    assert read_record(tmp_path) == {"schema": 1, "a": 1}
    for text, message in (("{", "cannot be read"), ('{"schema": 9}', "has schema 9"), ("[]", "has schema 'list'")):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_record(tmp_path)


def test_the_newest_run_is_the_one_finished_last(tmp_path):
    with pytest.raises(CheckpointError, match="contains no finished run"):
        newest_run(tmp_path)
    for index, name in enumerate(("z", "a")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({}))
        os.utime(tmp_path / name / "run.json", ns=(index * 10**9, index * 10**9))
    assert newest_run(tmp_path).name == "a"


def test_equal_weights_have_one_digest(tmp_path):
    """safetensors writes metadata in any order, which differs from process to process."""
    state = {"b": torch.arange(3.0), "a": torch.ones(2, 2)}
    (one, other), said = ("format", "labels"), {"format": "pt", "labels": '["Zoë"]'}
    content = with_ordered_header(save(state, said))
    assert content == with_ordered_header(content)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    assert list(header["__metadata__"]) == ["format", "labels"]
    header["__metadata__"] = {other: said[other], one: said[one]}
    text = json.dumps(header, separators=(",", ":")).encode()  # padded otherwise, too
    assert with_ordered_header(len(text).to_bytes(8, "little") + text + content[end:]) == content
    (tmp_path / "x.safetensors").write_bytes(content)
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == said
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in state.items())
