"""Two processes train what one trains; one that dies ends the run with its own words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stageproof.train.__main__ import main
from stageproof.train.distributed.batchnorm import SharedBatchNorm, share_batchnorm
from stageproof.train.distributed.process_group import ProcessGroup
from stageproof.train.runs.unfinished import partial_folder
from tests.train.small_networks import SMALLEST

REPOSITORY = Path(__file__).parents[2]
TINY = [*SMALLEST, "--image-size", "32", "--batch-size", "8", "--precision", "fp32"]
TINY += ["--head.epochs", "1", "--full.epochs", "1"]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    )


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    options = ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    return run("-m", "torch.distributed.run", *options, "--local-addr", "127.0.0.1", *arguments)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shared", "frozen", "mixup"])
def test_two_processes_see_the_losses_of_one_step_by_step(tmp_path, kind):
    script = str(Path(__file__).with_name("ranks.py"))
    alone, together = run(script, kind, str(tmp_path / "1")), torchrun(script, kind, str(tmp_path / "2"))
    assert alone.returncode == 0, alone.stderr
    assert together.returncode == 0, together.stderr
    one, two = (json.loads((tmp_path / name).read_text()) for name in "12")
    assert (one["ranks"], two["ranks"]) == (1, 2)
    assert len(one["losses"]) == 20
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    np.testing.assert_allclose(two["validation"], one["validation"], rtol=1e-4)
    assert np.shape(two["logits"]) == (23, 4)
    assert two["seen"] == pytest.approx(one["seen"], abs=0.05)  # the same slices, augmented alike, each once
    assert len(one["seen"]) == 79
    assert two["weights"][0] == two["weights"][1]


@pytest.fixture(scope="module")
def single(few_slices, tmp_path_factory) -> Path:
    """The first stage, trained by one process: this one."""
    out = tmp_path_factory.mktemp("single") / "run"
    words = ["--data", str(few_slices), *TINY, "--full.epochs", "0", "--device", "cpu"]
    assert main([*words, "--out", str(out)]) == 0
    return out


def test_devices_2_on_the_cpu_writes_one_run(few_slices, single, tmp_path, capfd):
    words = ["--data", str(few_slices), *TINY, "--device", "cpu", "--devices", "2", "--json"]
    status = main([*words, "--out", str(tmp_path / "runs" / "a")])
    said = capfd.readouterr()
    assert status == 0, said.err
    assert len(said.out.splitlines()) == 1  # one process prints
    assert said.err.count("full 1/1") == 1
    assert "Warning" not in said.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]
    record = json.loads((tmp_path / "runs" / "a" / "run.json").read_text())
    assert record["devices"] == 2
    one, two = ((path / "metrics.jsonl").read_text().splitlines() for path in (single, tmp_path / "runs" / "a"))
    head_of_one, head_of_two = json.loads(one[0]), json.loads(two[0])
    assert head_of_two["loss"] == pytest.approx(head_of_one["loss"], rel=1e-4)
    assert (single / "split.csv").read_text() == (tmp_path / "runs" / "a" / "split.csv").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_two_processes_write_a_checkpoint_and_go_on_later(few_slices, tmp_path, number):
    out = tmp_path / "runs" / "a"
    words = ["--data", str(few_slices), *TINY, "--device", "cpu", "--devices", "2", "--checkpoint-minutes", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "train", *words, "--full.epochs", "50", "--out", str(out)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (partial_folder(out) / "checkpoint.previous.pt").exists():  # the test's own time-out ends it
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(number)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert (
        errors.splitlines()[-1]
        == f"Stopped after writing a checkpoint. Resume with: python -m train --resume --out {out}"
    )
    options = json.loads((partial_folder(out) / "options.json").read_text())
    options["settings"]["full"]["epochs"] = 1
    (partial_folder(out) / "options.json").write_text(json.dumps(options))
    done = run("-m", "train", "--resume", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stderr


@pytest.mark.slow
def test_it_runs_unchanged_under_torchrun(few_slices, tmp_path):
    done = torchrun("-m", "train", "--data", str(few_slices), *TINY, "--device", "cpu", "--out", str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation slices") == 1
    assert json.loads((tmp_path / "a" / "run.json").read_text())["devices"] == 2


@pytest.mark.slow
def test_bad_data_is_still_one_line_and_exit_2(tmp_path):
    done = run(
        "-m", "train", "--data", "nowhere", *TINY, "--device", "cpu", "--devices", "2", "--out", str(tmp_path / "a")
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"DatasetError: {REPOSITORY / 'nowhere'} does not exist. Give a folder of class folders, a .parquet file or a "
        ".csv file."
    ]
    assert list(tmp_path.iterdir()) == []


DYING = """
import sys
from train.engine import loop
from train.__main__ import main

step = loop._step

def dying(model, trained, state, batch, processes, *rest):
    if processes.rank == 1 and state.step == 1:
        raise ZeroDivisionError("the second process gave up")
    return step(model, trained, state, batch, processes, *rest)

loop._step = dying
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_with_its_own_traceback(few_slices, tmp_path):
    (tmp_path / "dying.py").write_text(DYING)
    out = tmp_path / "runs" / "a"
    done = run(
        *(str(tmp_path / "dying.py"), "--data", str(few_slices), *TINY, "--device", "cpu", "--devices", "2"),
        *("--head.epochs", "0", "--out", str(out)),
    )
    assert done.returncode == 1
    assert "TrainingError: Process 1 failed: ZeroDivisionError: the second process gave up" in done.stderr
    assert "in dying" in done.stderr  # its traceback
    assert not out.exists()


@pytest.mark.parametrize(
    ("batch", "devices", "message"),
    [
        ("3", "2", "for 2 devices; each device needs at least 2 slices"),
        ("8", "-1", "--devices is -1, expected 0 or more"),
    ],
)
def test_devices_that_cannot_be(tmp_path, capsys, batch, devices, message):
    words = ["--batch-size", batch, "--devices", devices, "--device", "cpu", "--out", str(tmp_path / "a")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("count", "size"), [(10, 3), (2, 4), (0, 2), (9, 1)])
def test_shares_cover_everything_once(count, size):
    shares = [ProcessGroup(rank, size).share(count) for rank in range(size)]
    assert [index for share in shares for index in range(count)[share]] == list(range(count))
    assert max(s.stop - s.start for s in shares) - min(s.stop - s.start for s in shares) <= 1


def test_a_team_of_one_exchanges_nothing():
    processes, values = ProcessGroup(), torch.ones(3)
    assert processes.leader
    assert processes.all_reduce(values) is values
    assert processes.gather(values, 3) is values
    assert processes.broadcast("x") == "x"
    assert list(processes.all_gather(1)) == [1]


def test_shared_batchnorm_keeps_names_weights_and_the_eval_mode():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    plain(torch.randn(4, 1, 8, 8))
    shared = share_batchnorm(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), "cpu")
    shared.load_state_dict(plain.state_dict())
    assert isinstance(shared[1], SharedBatchNorm)
    assert list(shared.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(shared.eval()(images), plain.eval()(images))
