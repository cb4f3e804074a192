"""Ray gives the bytes that local processes give, and goes on without a node; losses are counted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from stageproof.serving.archive.engines.shard_queue import ATTEMPTS, ShardQueue
from stageproof.serving.archive.errors import ArchiveError
from stageproof.serving.archive.output.plan import Plan
from stageproof.serving.archive.verification import verify
from tests.serving.conftest import ROOT
from tests.serving.test_score import bytes_of


def test_a_shard_that_ends_its_workers_is_left_out_and_the_others_are_scored():
    queue, seen = ShardQueue([0, 1, 2, 3], workers=2), []
    while queue:
        shard = queue.take()
        seen.append(shard)
        if shard == 1:
            again = queue.lost(shard, "killed by SIGKILL")
        else:
            queue.finished()
    assert seen == [0, 1, 2, 3, 1, 1]
    assert not again
    assert ATTEMPTS == 3


def test_workers_that_all_end_stop_the_run():
    queue = ShardQueue(range(100), workers=2)
    for _ in range(5):
        queue.lost(queue.take(), "exit status 1")
    with pytest.raises(ArchiveError, match="6 workers in a row ended before they finished a shard; the last one: exit"):
        queue.lost(queue.take(), "exit status 1")


_NODES = """
import sys, threading, time, ray
from pathlib import Path
from ray.cluster_utils import Cluster
from stageproof.serving.archive.__main__ import main

parts, words = Path(sys.argv[1]) / "parts", sys.argv[2:]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)

def kill():
    while not list(parts.glob("part-*")):
        time.sleep(0.02)
    cluster.remove_node(second, allow_graceful=False)

threading.Thread(target=kill, daemon=True).start()
status = main(words)
assert len(cluster.list_all_nodes()) == 1  # the other one was removed while shards were scored
ray.shutdown()
cluster.shutdown()
sys.exit(status)
"""


@pytest.mark.slow
def test_ray_gives_the_same_bytes_also_when_a_node_ends(archive, finished, key, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
    inputs = tmp_path / "in"
    inputs.mkdir()
    for at in range(20):
        (inputs / f"{at:02d}").symlink_to(archive / f"doe-john-{at % 6}" / "anat")
    # Links to one folder are followed once each, so these are the inputs of six folders; the list below has them all.
    paths = [str(path) for at in range(20) for path in sorted((inputs / f"{at:02d}").iterdir())]
    table = tmp_path / "list.csv"
    table.write_text("path\n" + "\n".join(paths) + "\n")
    from tests.serving.test_interruptions import command

    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    common = ("--shard-images", "2", "--threads", "1", "--workers", "2")
    for out, script, more in (
        ("local", [], ()),
        ("ray", [], ("--engine", "ray")),
        ("nodes", ["-c", _NODES, str(tmp_path / "nodes")], ("--engine", "ray")),
    ):
        words = command(tmp_path / out, table, key, *common, *more)
        words = [sys.executable, *script, *words[3:]] if script else words
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert verify(Plan.read(tmp_path / out)).complete
        if out == "nodes":
            assert "WARNING: a worker ended" in done.stderr
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "local")
    assert bytes_of(tmp_path / "nodes") == bytes_of(tmp_path / "local")
