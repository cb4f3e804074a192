"""`python -m benchmarks` as a whole, on a network that has hardly learnt: real processes, real answers."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from stageproof.benchmarks.__main__ import main
from stageproof.benchmarks.contenders.selection import optimised_for, predictors, select
from stageproof.benchmarks.inference.suite import unstable
from stageproof.benchmarks.machine import circumstances as machine
from stageproof.benchmarks.options import SCENARIOS, parse
from stageproof.benchmarks.peers.eager import SNIPPET
from stageproof.benchmarks.records.schema import STAGES, Row, build, write
from stageproof.runtime import InputError
from stageproof.runtime.bundle.manifest import read_manifest


@pytest.fixture
def measured(bundle, trained_run, tmp_path, capsys):
    """(record, stdout, stderr) of a run with these options."""

    def run(*options):
        out = tmp_path / "out.json"
        arguments = [str(bundle), "--run", str(trained_run), "--samples", "12", "--images", "16", "--out", str(out)]
        assert main([*arguments, *options]) == 0
        said = capsys.readouterr()
        return json.loads(out.read_text()), said.out, said.err

    return run


def test_a_quick_run_keeps_every_sample(measured, bundle):
    record, out, _ = measured("--quick", "--no-peers", "--trust-code", "--scenario", "single_stream", "offline")
    assert record["schema"] == 1
    assert record["bundle"]["labels"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]+\+00:00", record["started"])
    names = {"Predictor, onnx fp32", "Predictor, openvino fp32", "Predictor, torchscript fp32"}
    for scenario in ("single_stream", "offline"):
        rows = [row for row in record["rows"] if row["scenario"] == scenario]
        alone = {name.replace("Predictor", "engine") for name in names} if scenario == "offline" else set()
        assert {row["name"] for row in rows} == names | alone
        assert {row["name"] for row in rows if row["kind"] == "engine"} == alone
        mode = "throughput" if scenario == "offline" else "latency"
        assert {row["settings"].rpartition(" ")[2] for row in rows} == {mode}
        assert all(min(row["samples_ms"]) > 0 for row in rows)
        assert len({len(row["samples_ms"]) for row in rows}) == 1, "samples of a scenario are paired"
    for row in record["rows"]:
        assert 0 < row["load_s"] < row["first_answer_s"]
        assert row["file_bytes"] < row["peak_rss_bytes"] < machine._memory()
        assert row["file_bytes"] > 1e6
        if row["scenario"] == "single_stream":
            assert set(row["stages_ms"]) == set(STAGES)
            sums = np.sum([row["stages_ms"][stage] for stage in STAGES], axis=0)
            assert (sums <= np.array(row["samples_ms"])).all(), "stages are within the answer"
    processes = {(row["scenario"], row["load_s"]) for row in record["rows"]}
    assert len(processes) == 6, "each mode is loaded in a process of its own"
    assert all(name in out for name in names)
    assert max(map(len, out.splitlines())) <= 80


def test_samples_are_shared_among_processes(measured):
    options = ("--quick", "--no-peers", "--only", "onnx fp32", "--processes", "2", "--scenario", "engine")
    record, _, err = measured(*options)
    assert {row["scenario"] for row in record["rows"]} == {"engine"}
    for row in record["rows"]:
        assert len(row["processes"]) == 2
        assert sum(row["processes"]) == len(row["samples_ms"])
    assert "Two runs like this one (2 processes of 12 samples) detect a change of" in err


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything_is_measured_and_none_decides_otherwise_in_float32(measured, tmp_path):
    record, out, err = measured("--scenario", "all", "--server-seconds", "3", "--work", str(tmp_path / "work"))
    assert {row["scenario"] for row in record["rows"]} == set(SCENARIOS) - {"scaling"}
    peers = {row["name"] for row in record["rows"] if row["kind"] == "peer"}
    assert {SNIPPET, "torch.compile fp32", "AOTInductor bf16", "ONNX Runtime int8"} - peers <= {"ONNX Runtime int8"}
    assert any("own quantiser" in name for name in peers)
    for row in record["rows"]:
        assert row["floor_share"] is None or row["floor_share"] > 0
        if row["precision"] == "fp32" and row["flips"]:
            assert row["flips"]["count"] == 0
    server = next(row for row in record["rows"] if row["scenario"] == "server")
    assert server["server"]["lost"] == 0
    assert [entry["images"] for entry in record["scaling"]["images"]] == [100, 1_000, 10_000]
    assert record["scaling"]["workers"][0]["workers"] == 1
    assert max(map(len, [*out.splitlines(), *err.splitlines()])) <= 300


def test_only_some_are_measured(bundle, capsys):
    notes: list[str] = []
    here = predictors(parse([str(bundle)]), read_manifest(bundle), 1, notes)
    assert len(here) >= 2
    assert "torchscript fp32 was not measured: model.ts contains code. To load it: --trust-code" in " ".join(notes)
    trusted = predictors(parse([str(bundle), "--trust-code"]), read_manifest(bundle), 1, [])
    assert len(trusted) == len(here) + 1
    assert select(here, ()) == here
    assert all(one.arguments["optimize_for"] == "latency" for one in here)
    fast = optimised_for(here[0], "throughput")
    assert fast.arguments == {**here[0].arguments, "optimize_for": "throughput"}
    assert (fast.name, fast.settings) == (here[0].name, here[0].settings.replace("latency", "throughput"))
    assert optimised_for(fast, "latency") == here[0]
    assert [one.name for one in select(here, ("ONNX fp32", "nobody"))] == ["Predictor, onnx fp32"]
    assert main([str(bundle), "--no-peers", "--only", "nobody"]) == 2
    said = capsys.readouterr().err
    assert "--only nobody selects no Predictor. Available: Predictor, " in said


def test_rows_that_are_not_stable_are_one_note(make):
    rows = [make.row(name, [1.0] * 12) for name in "abcdefghijkl"]
    assert unstable(rows) == []
    rows[0] = replace(rows[0], stable=False)
    assert unstable(rows) == [
        "a in single_stream is not stable: the medians of the first, second and last third of its samples differ by "
        "more than 10 %"
    ]
    (note,) = unstable([replace(row, stable=False) for row in rows])
    assert note == "12 of 12 rows are not stable: medians of their thirds differ by more than 10 %."
    assert len(note) <= 80


def test_a_bundle_that_is_not_there_is_said(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert f"There is no bundle at {tmp_path / 'nowhere'}. Make one with: python -m export" in capsys.readouterr().err
    (tmp_path / "bundle").mkdir()
    assert main([str(tmp_path / "bundel")]) == 2
    assert f"Did you mean {tmp_path / 'bundle'}?" in capsys.readouterr().err
    assert main([str(tmp_path / "bundle")]) == 2
    assert "is not a bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run", "nowhere"], "CheckpointError: nowhere does not exist"),
        (["--data", "nowhere"], "DatasetError: --data nowhere does not exist"),
        (["--work", "file"], "InputError: --work file is not a folder"),
        (["--device", "cuda"], "BackendUnavailable: --device cuda: torch "),
    ],
)
def test_what_cannot_be_measured_is_said_before_an_engine_is_loaded(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "bundle").mkdir()
    facts = {"run": "tiny", "exported": "2020-01-01T10:00:00Z"}
    manifest = SimpleNamespace(model=SimpleNamespace(architecture="resnet50"), provenance=facts)
    monkeypatch.setattr("benchmarks.preconditions.read_manifest", lambda bundle: manifest)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("benchmarks.inference.suite.run", pytest.fail)
    assert main(words) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "bundle bundle: resnet50, of run tiny, exported 2020-01-01T10:00:00Z"
    assert said[-1].startswith(message)


def test_a_run_of_other_weights_is_refused(bundle, trained_run, tmp_path, capsys):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(trained_run, other)
    record = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**record, "weights_sha256": "0" * 64}))
    assert main([str(bundle), "--run", str(other)]) == 2
    assert "has other weights than" in capsys.readouterr().err


def test_blank_images_are_refused_before_anything_is_loaded(bundle, trained_run, tmp_path, capsys):
    from PIL import Image

    for size in range(64, 80):
        Image.new("L", (size, 64)).save(tmp_path / f"{size}.png")
    assert main([str(bundle), "--run", str(trained_run), "--data", str(tmp_path)]) == 2
    assert "16 of 16 images are blank" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--samples", "3"), ("--images", "4"), ("--server-load", "1.5"), ("--threads", "0"), ("--out", "/nowhere/x.json")],
)
def test_options_that_measure_nothing_are_refused(option, value):
    with pytest.raises(InputError, match=option):
        parse([option, value])


def test_scenarios_are_run_in_one_order_and_all_is_all_of_them():
    assert parse(["--scenario", "server", "single_stream"]).scenarios == ("single_stream", "server")
    assert parse(["--scenario", "all"]).scenarios == SCENARIOS
    assert parse(["--scenario", "scaling"]).scenarios == ("single_stream", "scaling")


def test_a_record_is_written_whole_or_not_at_all(tmp_path):
    row = Row("a", "peer", "single_stream", "onnx", "fp32", 1, 2, "", [1.0], 1000.0, True)
    path = tmp_path / "out.json"
    write(build([row], notes=["é"]), path)
    assert json.loads(path.read_text(encoding="utf-8"))["rows"][0]["samples_ms"] == [1.0]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(build([row], floor=float("nan")), path)
    assert json.loads(path.read_text(encoding="utf-8"))["notes"] == ["é"]
    assert [file.name for file in tmp_path.iterdir()] == ["out.json"]
