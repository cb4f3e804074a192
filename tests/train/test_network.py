"""Training on one machine opens no port that another machine reaches, and none that unpickles what it receives."""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stageproof.runtime.errors import InputError
from stageproof.train.distributed.rendezvous import FOLDER, check_network, is_launched, private_folder
from stageproof.train.runs.unfinished import OPTIONS, partial_folder
from tests.train.sockets import Socket, sockets, tree

REPOSITORY = Path(__file__).parents[2]
WORDS = ["--image-size", "32", "--batch-size", "8", "--head.epochs", "0", "--full.epochs", "500", "--precision", "fp32"]

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc/net")


def start(*command: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment},
    )


def seen_while_training(process: subprocess.Popen[str], out: Path) -> set[Socket]:
    """Every socket that was seen from the start until the processes had exchanged data for a while."""
    seen: set[Socket] = set()
    looks = 0
    while looks < 20:  # the test's own time-out ends it
        assert process.poll() is None, process.communicate()[1]
        seen |= sockets(tree(process.pid))
        looks += (partial_folder(out) / OPTIONS).exists()  # written when they have met
        time.sleep(0.05)
    return seen


class Planted:
    """Unpickled, it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


ATTACK = """
import sys
from datetime import timedelta
store = dist.TCPStore("127.0.0.1", int(sys.argv[1]), is_master=False, timeout=timedelta(seconds=2))
store.set("torch.rendezvous", bytes.fromhex(sys.argv[2]))
print("a store answered")
"""


def attack(port: int, payload: bytes) -> None:
    """What a neighbour can do at a port: torch's own store client, and the payload as it is."""
    client = subprocess.Popen(
        [sys.executable, "-c", ATTACK, str(port), payload.hex()], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:  # it waits for ever for a port that answers nothing
        said, _ = client.communicate(timeout=8)
    except subprocess.TimeoutExpired:
        client.kill()
        said, _ = client.communicate()
    assert said == b""
    with socket.create_connection(("127.0.0.1", port), 2) as connection:
        connection.sendall(payload * 100)


@pytest.mark.slow
def test_two_processes_listen_on_loopback_alone_and_unpickle_nothing_from_it(few_slices, tmp_path):
    out, proof = tmp_path / "runs" / "a", tmp_path / "proof"
    # What a run on several machines may have left in the environment must not open a port here.
    hostile = {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "eth0", "MASTER_ADDR": "0.0.0.0"}
    words = ["--data", str(few_slices), *WORDS, "--device", "cpu", "--devices", "2", "--out", str(out)]
    process = start("-m", "train", *words, **hostile)
    try:
        seen = seen_while_training(process, out)
        assert [one for one in seen if not one.is_local] == []
        ports = {one.port for one in sockets(tree(process.pid)) if one.listens}
        payload = pickle.dumps(Planted(proof))
        for port in ports:
            attack(port, payload)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert not proof.exists()
    assert "Traceback" not in errors, errors


@pytest.mark.slow
def test_the_check_sees_what_torchrun_opens(few_slices, tmp_path):
    """The control of the test above: torchrun's agent does listen on every interface, and we say so."""
    options = ["--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    out = tmp_path / "a"
    words = ["--data", str(few_slices), *WORDS, "--device", "cpu", "--out", str(out)]
    process = start("-m", "torch.distributed.run", *options, "-m", "train", *words)
    try:
        seen = seen_while_training(process, out)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert any(one.listens and not one.is_local for one in seen)
    assert errors.count("WARNING: torchrun listens on all network interfaces") == 1


@pytest.mark.slow
def test_after_a_kill_no_process_goes_on_and_the_next_start_removes_the_folder(few_slices, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    words = ["--data", str(few_slices), *WORDS, "--device", "cpu", "--devices", "2"]
    out = tmp_path / "a"
    process = start("-m", "train", *words, "--out", str(out), TMPDIR=str(temporary))
    try:
        seen_while_training(process, out)
        left = tree(process.pid)[1:]
        folders = list(temporary.glob("stageproof-*"))
        assert folders
        assert all(folder.stat().st_mode & 0o077 == 0 for folder in folders)
    finally:
        process.kill()
        process.communicate()
    while any(Path(f"/proc/{pid}").exists() for pid in left):  # the test's own time-out ends it
        time.sleep(0.1)
    again = start("-m", "train", *words, "--out", str(tmp_path / "b"), TMPDIR=str(temporary))
    try:
        seen_while_training(again, tmp_path / "b")
        assert not any(folder.exists() for folder in folders)
    finally:
        again.send_signal(signal.SIGTERM)
        again.communicate(timeout=120)
    assert list(temporary.glob("stageproof-*")) == []


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "[::]", "0", "*"])
def test_several_machines_meet_at_an_address_that_is_named(monkeypatch, address):
    for name, value in {**TORCHRUN, "MASTER_ADDR": address}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"MASTER_ADDR is .*expected the address of one machine.*--trust-network"):
        check_network(trusted=False)
    assert check_network(trusted=True) is None
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.5")
    assert check_network(trusted=False) is None


def test_no_torchrun_needs_no_address():
    assert check_network(trusted=False) is None


def test_a_folder_that_others_may_enter_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path))
    assert is_launched()
    tmp_path.chmod(0o700)
    assert private_folder() == tmp_path
    tmp_path.chmod(0o750)
    with pytest.raises(InputError, match=r"is not private to this user \(expected mode 0700\)"):
        private_folder()
