"""The files of docs/deploy: syntax and options of the one for KServe; the one for Ray Serve runs where Ray Serve is."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from stageproof.serving.http.__main__ import _parser
from tests.serving.conftest import BUNDLE, ROOT
from tests.serving.http_service.running import slices

DEPLOY = ROOT / "docs" / "deploy"
_RUN = """
import json, sys, urllib.request, urllib.error, warnings
sys.path.insert(0, sys.argv[1])
import ray
from ray import serve
ray.init(
    address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1"
)
import ray_serve
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[3])})
serve.run(ray_serve.application({"bundle": sys.argv[2]}))
def post(body):
    request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[3]}/", body, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
files = [bytes.fromhex(line) for line in sys.stdin.read().split()]
print("RESULT" + json.dumps([post(file) for file in [*files, b"no image", b""]]))
serve.shutdown()
ray.shutdown()
"""


def test_the_service_takes_the_options_of_the_file_for_kserve():
    document = yaml.safe_load((DEPLOY / "kserve.yaml").read_text(encoding="utf-8"))
    assert document["kind"] == "InferenceService"
    [container] = document["spec"]["predictor"]["containers"]
    assert container["command"][:2] == ["stageproof", "serve"]
    given = _parser().parse_args([*container["command"][2:], *container["args"]])
    assert str(given.port) == str(container["ports"][0]["containerPort"])
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] == given.port
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts[container["command"][2]]["readOnly"] is True
    assert {mount["name"] for mount in mounts.values()} == {
        one["name"] for one in document["spec"]["predictor"]["volumes"]
    }


def test_the_service_takes_the_options_of_the_unit():
    lines = (DEPLOY / "stageproof.service").read_text(encoding="utf-8").splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    words = unit["ExecStart"].split()
    assert words[1] == "serve"
    given = _parser().parse_args(words[2:])
    assert given.host == "127.0.0.1"  # as IPAddressAllow
    assert int(unit["TimeoutStopSec"]) > given.drain_s


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze: it is a part of systemd")
def test_systemd_reads_the_unit_and_rates_it_as_protected(tmp_path):
    text = (DEPLOY / "stageproof.service").read_text(encoding="utf-8")
    (tmp_path / "stageproof.service").write_text(text.replace("/opt/stageproof/bin/stageproof", sys.executable))
    for words in (["verify"], ["security", "--offline=true", "--threshold=20"]):
        done = subprocess.run(
            ["systemd-analyze", *words, str(tmp_path / "stageproof.service")], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_deployment_for_ray_serve_answers_as_the_predictor(tmp_path):
    import json

    from stageproof.runtime import Predictor
    from tests.serving.triton_server import free_port

    if any(importlib.util.find_spec(name) is None for name in ("ray", "grpc_reflection")):
        pytest.skip("no Ray Serve: pip install 'ray[serve]'")
    files = slices(3)
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", _RUN, str(DEPLOY), str(BUNDLE), str(free_port())]
    done = subprocess.run(
        command, input="\n".join(file.hex() for file in files), capture_output=True, text=True, env=environment,
        cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    answers = json.loads(line.removeprefix("RESULT"))
    predictor = Predictor(BUNDLE, threads=1)
    expected = [one.label for one in predictor.predict_batch(files)]
    assert [(status, one["label"]) for status, one in answers[:3]] == [(200, label) for label in expected]
    assert (answers[3][0], answers[3][1]["status"]) == (200, "rejected")
    assert answers[4] == [400, {"error": "the body is empty; expected an encoded image."}]
