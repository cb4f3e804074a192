"""Networks that no export may certify, and evidence that is not what a user would think, by the command line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from stageproof.export.__main__ import main
from stageproof.export.bisect.__main__ import main as bisect
from stageproof.export.bundle.guard import write_guard
from stageproof.runtime.bundle.verify import verified
from tests import tiny


@pytest.fixture(scope="module", autouse=True)
def known():
    with tiny.known(guard=write_guard):
        yield


def constant(state):
    state["fc.weight"].zero_()


def one_class(state):
    """A network that responds to its input, and answers one class whatever it is."""
    state["fc.bias"][2] += 1000


def overflowing(state):
    """Finite weights whose product is not."""
    state["conv1.weight"].fill_(3e38)


def almost_constant(state):
    """Ties all over, decided by rounding."""
    state["fc.weight"].mul_(1e-6)
    state["fc.bias"].zero_()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (constant, "ParityError: the reference predicts"),
        (one_class, "ParityError: the reference predicts NonDemented for 100.0% of 32 images: too uniform"),
        (overflowing, "ParityError: the reference returns NaN or infinity for"),
        (almost_constant, "ParityError: the reference ignores its input: no probability differs by more than"),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_network_that_shows_nothing_is_refused(spoil, reason, tiny_checkpoint, tmp_path, capsys):
    state = torch.load(tiny_checkpoint, weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / "spoilt.pth")
    arguments = [str(tmp_path / "spoilt.pth"), "--architecture", tiny.NAME, "--image-size", str(tiny.SIZE)]
    assert (
        main([*arguments, "--parity-images", "32", "--to", "pytorch", "--out", str(tmp_path / "new" / "bundle")]) == 1
    )
    error = capsys.readouterr().err
    assert reason in error
    assert "compared on synthetic phantoms" in error
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt.pth"]


def test_random_weights_are_refused(tmp_path, capsys):
    from stageproof.train.networks import build

    torch.manual_seed(0)
    torch.save(build("resnet50", 4).state_dict(), tmp_path / "random.pth")
    arguments = [str(tmp_path / "random.pth"), "--image-size", "32", "--parity-images", "32"]
    assert main([*arguments, "--out", str(tmp_path / "bundle")]) == 1
    assert "Compare on images of every class" in capsys.readouterr().err
    assert not (tmp_path / "bundle").exists()


def test_a_run_whose_data_is_gone_says_so_everywhere(tiny_run, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(tiny_run, moved)
    record = json.loads((moved / "run.json").read_text())
    record["options"]["data"] = str(tmp_path / "gone")
    (moved / "run.json").write_text(json.dumps(record))
    out = tmp_path / "bundle"
    assert main([str(moved), "--to", "pytorch", "--parity-images", "32", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    warning = (
        f"WARNING: the data of moved is no longer at {tmp_path / 'gone'}; artifacts are compared on synthetic phantoms"
    )
    assert warning in printed.err
    assert warning in " ".join(printed.out.split())
    public = (
        f"WARNING: the data of run-{record['weights_sha256'][:12]} is no longer at <data>; artifacts are compared on"
    )
    for facts in (verified(out).provenance["comparison"], json.loads((out / "parity.json").read_text())["comparison"]):
        assert facts["kind"] == "phantoms"
        assert facts["warning"].startswith(public)  # without the name of the run and the path
        assert sum(facts["answers"].values()) == facts["images"] == 32
    assert "the bundle has no guard: the data of moved is no longer at" in printed.err
    assert f"run {moved}: finished" in printed.err
    assert f"bundle {out}" in printed.err
    assert f"bundle {out}" in printed.out


def test_every_command_gives_the_same_status_for_what_it_cannot_work_with(tmp_path, small_bundle, capsys):
    none = str(tmp_path / "none")
    assert main(["--rebuild", "--out", none]) == 2
    assert bisect([none]) == 2
    broken = tmp_path / "broken"
    shutil.copytree(small_bundle, broken)
    (broken / "manifest.json").unlink()
    (broken / "manifest.json").write_text("{}")
    assert main(["--rebuild", "--out", str(broken)]) == 2
    assert bisect([str(broken)]) == 2
    assert capsys.readouterr().err.count("BundleError: ") == 4


@pytest.mark.parametrize("kind", ["ExportError", "ParityError", "BackendError"])
def test_each_error_is_printed_by_its_own_type(kind, tiny_run, tmp_path, monkeypatch, capsys):
    from stageproof.export import run as pipeline
    from stageproof.export.formats.build import Outcome

    monkeypatch.setattr(
        pipeline,
        "_format",
        lambda *arguments: [Outcome("pytorch", "fp32", "model.safetensors", "rejected", "it failed", kind)],
    )
    arguments = [str(tiny_run), "--to", "pytorch", "--parity-images", "32", "--json", "--out", str(tmp_path / "bundle")]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert f"\n{kind}: it failed\n" in printed.err
    assert [outcome["error"] for outcome in json.loads(printed.out)["outcomes"]] == [kind]
