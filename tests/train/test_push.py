"""Runs and bundles to a hub: what is uploaded, what stays, and what is refused. The client is the library itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from stageproof.runtime.__main__ import main as predict
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.train.hub.fetch import fetch
from stageproof.train.push.__main__ import main
from stageproof.train.push.plan import plan
from stageproof.train.push.readme import readme
from tests.train.hub_server import TOKEN
from tests.train.test_hub import BUNDLE, ROOT, RUN, files_of

NAME = "Zyxwvutsson"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run on data of a patient called NAME, with every file that a run may have."""
    folder = tmp_path / NAME / "run"
    shutil.copytree(RUN, folder)
    record = json.loads((folder / "run.json").read_text())
    data = tmp_path / NAME / "slices"
    record["options"] |= {"data": str(data), "groups": f"{NAME}/groups.csv", "out": f"runs/{NAME}"}
    record["options"] |= {"weights": f"{NAME}.pth", "patient_pattern": f"(?P<patient>{NAME}.)"}
    record["data"] |= {"source": str(data), "patients_told_by": "file"}
    record["start"] = f"{data.parent}/start.pth, head included"
    (folder / "run.json").write_text(json.dumps(record))
    rows = [f"NonDemented/{NAME}_{at:03d} (1).png,NonDemented,{NAME}{at},training" for at in range(8)]
    rows += [f"NonDemented/{NAME}-{at:03d}.png,NonDemented,{NAME}{at},validation" for at in range(8)]
    (folder / "split.csv").write_text("\n".join(["name,label,patient,side", *rows]) + "\n")
    (folder / "unreadable.json").write_text(json.dumps([{"name": f"{NAME}.png"}]))
    (folder / "evaluation").mkdir()
    for name in ("predictions.csv", "report.html", "names.json"):
        (folder / "evaluation" / name).write_text(NAME)
    (folder / "evaluation" / "evaluation.json").write_text('{"run": "run-0b473472da5f"}')
    (folder / "evaluation" / "roc.png").write_bytes(b"\x89PNG")
    (folder / f"evaluation-{NAME}").mkdir()
    (folder / f"evaluation-{NAME}" / "evaluation.json").write_text("{}")
    for name in ("index.html", "checkpoint.pt", "notes.txt", "slices.parquet", ".hidden"):
        (folder / name).write_text(NAME)
    return folder


def test_a_bundle_goes_and_comes_back(hub, capsys):
    assert main([str(BUNDLE), "owner/b", "--license", "mit", "--message", "first"]) == 0
    repo = hub.repos["owner/b"]
    sha = repo.branches["main"]
    assert repo.messages == ["", "first"]  # the repository's own first commit, and one of ours
    output = capsys.readouterr()
    assert f"uploaded: {hub.url}/owner/b/commit/{sha}" in output.out
    assert f"predict --from hf:owner/b@{sha} scan.jpg" in output.out or f"runtime --from hf:owner/b@{sha}" in output.out
    assert "        2708  model.onnx\n" in output.out
    assert TOKEN not in output.out + output.err
    assert files_of(fetch("hf:owner/b", "bundle")) == files_of(BUNDLE)
    header = ModelCard(repo.files["README.md"].decode()).data.to_dict()
    assert {
        "license": "mit",
        "library_name": "stageproof",
        "pipeline_tag": "image-classification",
    }.items() <= header.items()
    assert "stageproof-bundle" in header["tags"]
    assert "model-index" not in header


def test_a_run_goes_and_comes_back(hub):
    assert main([str(RUN), "owner/r", "--private"]) == 0
    assert hub.repos["owner/r"].private
    folder = fetch("hf:owner/r", "run")
    got, sent = files_of(folder), files_of(RUN)
    assert {name: got[name] for name in got if name != "run.json"} == {n: sent[n] for n in sent if n != "run.json"}
    record = json.loads(got["run.json"])
    del record["hub"]
    before = json.loads(sent["run.json"])
    before["options"]["out"] = "<run>"
    assert record == before


def test_no_name_of_a_patient_is_uploaded(hub, run, capsys):
    assert main([str(run), "owner/r"]) == 0
    files = hub.repos["owner/r"].files
    assert set(files) == {
        *(".gitattributes", "README.md", "run.json", "model.safetensors", "metrics.jsonl"),
        *("evaluation/evaluation.json", "evaluation/roc.png"),
    }
    assert not [name for name, content in files.items() if NAME.encode() in content]
    record = json.loads(files["run.json"])
    assert record["options"]["data"] == "<data>"
    assert record["options"]["weights"] == "<weights>"
    assert record["data"]["source"] == "user data"
    assert record["start"] == "<path>, head included"
    output = capsys.readouterr().out
    for name in ("split.csv", "unreadable.json", "evaluation/predictions.csv", "evaluation/report.html"):
        assert f"left out  {name}: " in output
        assert "(--with-patients uploads it)" in output
    for name in ("checkpoint.pt", "notes.txt", "slices.parquet", ".hidden", f"evaluation-{NAME}/evaluation.json"):
        assert f"left out  {name}: " in output
    assert "left out  evaluation/names.json: the key of the pseudonyms\n" in output


def test_with_patients_the_files_about_them_go_and_the_key_stays(hub, run, said, capsys):
    assert main([str(run), "owner/r", "--private", "--with-patients"]) == 0
    files = hub.repos["owner/r"].files
    assert files["split.csv"] == (run / "split.csv").read_bytes()
    assert {"unreadable.json", "evaluation/predictions.csv", "evaluation/report.html"} <= set(files)
    assert not {"evaluation/names.json", "index.html", "slices.parquet", f"evaluation-{NAME}/evaluation.json"} & set(
        files
    )
    assert NAME.encode() not in files["run.json"]
    assert any("files that name patients or slices are uploaded" in line for line in said)
    assert main([str(BUNDLE), "owner/b", "--with-patients"]) == 2
    assert "a bundle has no file about patients" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "text", "match"),
    [
        ("MODEL_CARD.md", f"The slice {NAME}-003.png is hard.", "MODEL_CARD.md contains the name of a slice"),
        ("MODEL_CARD.md", f"See `{NAME}-003`.", "MODEL_CARD.md contains the name of a slice"),
        ("DATASET_CARD.md", f"| {NAME}_003 (1).png |", "DATASET_CARD.md contains the name of a slice"),
        (
            "evaluation/evaluation.json",
            '{"data": "/home/mueller/slices"}',
            "contains a path of a machine, /home/mueller",
        ),
        ("metrics.jsonl", '{"log": "C:\\\\Users\\\\mueller\\\\x"}', "metrics.jsonl contains a path of a machine"),
    ],
)
def test_a_name_or_path_in_a_public_file_is_found_before_the_upload(file, text, match, hub, run, capsys):
    (run / file).write_text(text)
    assert main([str(run), "owner/r"]) == 2
    assert match in capsys.readouterr().err
    assert hub.requests == []


def test_a_card_may_have_links(hub, run):
    (run / "MODEL_CARD.md").write_text("---\nlanguage: en\n---\n[paper](https://example.org/a/b/c)\n")
    assert main([str(run), "owner/r"]) == 0


def test_the_run_that_stageproof_evaluates_is_public_but_for_its_slices(evaluated):
    """No name, no path: of a real run on files of known names; its README.md states the figures of its card alone."""
    found = plan(evaluated)
    assert {"MODEL_CARD.md", "DATASET_CARD.md", "evaluation/evaluation.json", "evaluation/roc.png"} <= set(found.files)
    assert {"split.csv", "evaluation/predictions.csv", "evaluation/names.json"} <= set(found.left_out)
    assert not any("no part of a run" in why for why in found.left_out.values())
    card, made = (
        ModelCard((evaluated / "MODEL_CARD.md").read_text()),
        ModelCard(readme(found, "owner/r", None).decode()),
    )
    assert made.data.eval_results == card.data.eval_results != []
    assert "license" not in made.data.to_dict()
    assert card.text.strip() in made.text


def test_a_dry_run_opens_no_connection(tmp_path):
    """In a process of its own, which every use of a network ends; without a token."""
    code = (
        "import sys\n"
        "def hook(event, given):\n"
        "    if event.startswith('socket.'):\n"
        "        raise SystemExit(f'{event} {given}')\n"
        "sys.addaudithook(hook)\n"
        "from stageproof.train.push.__main__ import main\n"
        f"sys.exit(main([{str(RUN)!r}, 'owner/r', '--dry-run']))"
    )
    environment = {"PYTHONPATH": str(ROOT), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "README.md" in done.stdout
    assert "dry run: nothing was uploaded to hf:owner/r" in done.stdout


def refuse_second_upload(hub):
    def fault(method: str, path: str) -> int:
        return 403 if method == "PUT" and len(hub.asked("PUT", "/upload/")) > 1 else 0

    return fault


@pytest.mark.parametrize("how", ["upload", "commit"])
def test_an_interrupted_upload_shows_nothing(how, hub, capsys):
    hub.fault = refuse_second_upload(hub) if how == "upload" else lambda method, path: 1 if "/commit/" in path else 0
    assert main([str(BUNDLE), "owner/b"]) == 1
    assert hub.asked("PUT", "/upload/")  # it had begun
    assert set(hub.repos["owner/b"].files) == {".gitattributes"}
    assert "Nothing of this upload is visible. The new repository is empty." in capsys.readouterr().err
    hub.fault = lambda method, path: 0
    assert main([str(BUNDLE), "owner/b"]) == 0
    assert files_of(fetch("hf:owner/b", "bundle")) == files_of(BUNDLE)


def test_an_upload_over_an_earlier_one_that_is_interrupted_leaves_the_earlier(hub, tmp_path, capsys):
    repo = hub.add("owner/b", files_of(BUNDLE))
    before = dict(repo.files)
    hub.add("owner/r", {})
    hub.fault = lambda method, path: 1 if "/commit/" in path else 0
    assert main([str(BUNDLE), "owner/b"]) == 1
    assert repo.files == before
    error = capsys.readouterr().err
    assert "Nothing of this upload is visible." in error
    assert "is empty" not in error


def test_a_commit_whose_answer_is_lost_is_reported(hub, capsys):
    hub.fault = lambda method, path: 2 if "/commit/" in path else 0
    assert main([str(BUNDLE), "owner/b"]) == 1
    assert f"It has the new commit {hub.repos['owner/b'].branches['main'][:12]}." in capsys.readouterr().err


def test_a_commit_of_somebody_else_meanwhile(hub, capsys):
    repo = hub.add("owner/b", files_of(BUNDLE))

    def fault(method: str, path: str) -> int:
        if "/preupload/" in path:
            repo.commit({**repo.files, "new": b"x"})
        return 0

    hub.fault = fault
    assert main([str(BUNDLE), "owner/b"]) == 1
    assert "412" in capsys.readouterr().err
    assert repo.files["new"] == b"x"


def test_what_is_in_the_repository_is_respected(hub, said, capsys):
    hub.add("owner/r", files_of(RUN))
    hub.add("owner/other", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    hub.add("owner/new", {"README.md": b"# Mine", "LICENSE": b"x"})
    assert main([str(BUNDLE), "owner/r"]) == 2
    assert "contains a run, and this is a bundle. Give another repository" in capsys.readouterr().err
    assert main([str(BUNDLE), "owner/other"]) == 2
    assert "contains config.json, pytorch_model.bin, and neither a run nor a bundle" in capsys.readouterr().err
    assert main([str(BUNDLE), "owner/new", "--private"]) == 2
    assert "exists and is public; --private is for a new repository" in capsys.readouterr().err
    assert hub.asked("POST", "/commit/") == []
    assert main([str(BUNDLE), "owner/new"]) == 0
    assert hub.repos["owner/new"].files["LICENSE"] == b"x"
    assert "kept, since no part of what is uploaded: LICENSE" in said


def test_files_of_an_earlier_upload_are_deleted_and_the_licence_is_kept(hub, said):
    card = b"---\nlicense: cc-by-4.0\n---\n# Card\n"
    repo = hub.add("owner/b", {**files_of(BUNDLE), "model.int8.onnx": b"old", "model.sig": b"old", "README.md": card})
    assert main([str(BUNDLE), "owner/b"]) == 0
    assert not {"model.int8.onnx", "model.sig"} & set(repo.files)
    assert ModelCard(repo.files["README.md"].decode()).data.license == "cc-by-4.0"
    assert "README.md keeps its licence: cc-by-4.0" in said
    assert "deleted from the branch, since this upload has no such files: model.int8.onnx, model.sig" in said
    assert main([str(BUNDLE), "owner/b", "--license", "mit"]) == 0
    assert ModelCard(repo.files["README.md"].decode()).data.license == "mit"


def test_files_about_patients_of_an_earlier_upload_are_deleted_with_a_warning(hub, run, said):
    assert main([str(run), "owner/r", "--private", "--with-patients"]) == 0
    assert main([str(run), "owner/r"]) == 0
    assert "split.csv" not in hub.repos["owner/r"].files
    assert any("remain in its earlier commits" in line for line in said)


def test_nothing_is_committed_twice(hub, capsys):
    assert main([str(BUNDLE), "owner/b"]) == 0
    assert main([str(BUNDLE), "owner/b"]) == 0
    assert "unchanged: " in capsys.readouterr().out
    assert len(hub.repos["owner/b"].messages) == 2


def test_a_branch(hub):
    repo = hub.add("owner/b", {})
    main_before = repo.branches["main"]
    assert main([str(BUNDLE), "owner/b", "--revision", "v2"]) == 0
    assert repo.branches["main"] == main_before
    assert files_of(fetch("hf:owner/b@v2", "bundle")) == files_of(BUNDLE)
    assert main([str(BUNDLE), "owner/new", "--revision", "v2"]) == 0
    assert set(hub.repos["owner/new"].files) == {".gitattributes"}
    assert files_of(fetch("hf:owner/new@v2", "bundle")) == files_of(BUNDLE)


def test_a_gitignore_of_the_repository_drops_nothing_silently(hub, capsys):
    hub.add("owner/b", {".gitignore": b"*.onnx\n"})
    assert main([str(BUNDLE), "owner/b"]) == 1
    assert "lacks model.onnx: the .gitignore of the repository excludes them" in capsys.readouterr().err


def test_permission(hub, monkeypatch, capsys):
    hub.add("other/b", files_of(BUNDLE))
    for name in ("other/b", "other/new"):
        assert main([str(BUNDLE), name]) == 2
        assert (
            f"hf:{name}: the Hub refused the request (403): the token in use does not permit it"
            in capsys.readouterr().err
        )
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main([str(BUNDLE), "owner/b"]) == 2
    error = capsys.readouterr().err
    assert "refused the request (401)" in error
    assert "hf_wrong" not in error
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    assert main([str(BUNDLE), "owner/b"]) == 2
    assert (
        "no token of the Hub was found, so nothing can be uploaded. Log in with: hf auth login"
        in capsys.readouterr().err
    )
    assert hub.requests == []


def test_offline_nothing_is_uploaded(hub, monkeypatch, capsys):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert main([str(BUNDLE), "owner/b"]) == 1
    assert "HF_HUB_OFFLINE is set, so no request was sent" in capsys.readouterr().err
    assert hub.requests == []


def test_what_is_not_uploaded(hub, tmp_path, capsys):
    def error(folder: Path, *words: str) -> str:
        assert main([str(folder), "owner/x", *words]) == 2
        return capsys.readouterr().err

    def copied(source: Path, name: str) -> Path:
        return Path(shutil.copytree(source, tmp_path / name))

    assert "is not there" in error(tmp_path / "nowhere")
    assert "contains neither run.json" in error(tmp_path)
    bundle = copied(BUNDLE, "changed")
    (bundle / "model.onnx").write_bytes(b"x")
    assert "model.onnx has SHA-256" in error(bundle)
    bundle = copied(BUNDLE, "added")
    (bundle / "patients.csv").write_text("x")
    assert "is not listed in the manifest" in error(bundle)
    run = copied(RUN, "weights")
    (run / "model.safetensors").write_bytes(b"x")
    assert "the weights were changed after training. Nothing was uploaded" in error(run)
    (run / "model.safetensors").unlink()
    assert "has no model.safetensors, the weights of the run" in error(run)
    run = copied(RUN, "link")
    (run / "curves.png").symlink_to(tmp_path / "secret")
    assert "is a symbolic link" in error(run)
    run = copied(RUN, "header")
    (run / "MODEL_CARD.md").write_text("---\na: [\n---\n")
    assert "MODEL_CARD.md has no valid header" in error(run)
    assert "--license is 'MIT license'" in error(RUN, "--license", "MIT license")
    assert "--revision is 'a b', expected the name of a branch" in error(RUN, "--revision", "a b")
    assert main([str(RUN), "x"]) == 2
    assert "'x' is not the name of a repository" in capsys.readouterr().err
    assert hub.requests == []


def test_a_record_that_no_download_would_accept_is_not_uploaded(hub, run, capsys):
    record = json.loads((run / "run.json").read_text())
    record["metrics"]["accuracy"] = float("nan")
    (run / "run.json").write_text(json.dumps(record))
    assert main([str(run), "owner/r"]) == 2
    assert "CheckpointError: " in (error := capsys.readouterr().err)
    assert "run.json has NaN" in error
    assert hub.requests == []


def test_a_signature_goes_with_its_bundle(hub, tmp_path, capsys):
    pytest.importorskip("cryptography")
    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    shutil.copy(ROOT / "tests" / "data" / "signed" / "model.sig", bundle)
    assert main([str(bundle), "owner/b"]) == 0
    hub.add("owner/unsigned", files_of(BUNDLE))
    words = ["--trusted-key", str(ROOT / "tests" / "data" / "signed" / "key.pub"), str(ROOT / "scan.jpg")]
    assert predict(["--from", "hf:owner/b", *words]) in (0, 1)
    assert predict(["--from", "hf:owner/unsigned", *words]) == 2
    assert "is not signed" in capsys.readouterr().err


def test_an_unsealed_folder_of_a_bundle_is_left_out(hub, tmp_path, capsys):
    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    (bundle / "logs").mkdir()
    (bundle / "logs" / "onnx.log").write_text("/home/mueller/x/y")
    assert main([str(bundle), "owner/b"]) == 0
    assert "logs/onnx.log" not in hub.repos["owner/b"].files
    assert "left out  logs/: not needed to predict" in capsys.readouterr().out


def test_the_weights_are_the_same_bytes(hub):
    assert main([str(RUN), "owner/r"]) == 0
    assert sha256_file(fetch("hf:owner/r", "run") / "model.safetensors") == sha256_file(RUN / "model.safetensors")


def test_as_a_user_runs_it(hub, tmp_path):
    """Both commands in processes that only the environment tells where the hub is and who the user is."""
    environment = {
        "PYTHONPATH": str(ROOT),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
    }
    environment |= {"HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stageproof", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)

    done = run("push", str(BUNDLE), "owner/b")
    assert done.returncode == 0, done.stderr
    next_command = done.stdout.splitlines()[-1].removeprefix("Next: stageproof ").split()
    done = run(*next_command[:-1], str(ROOT / "scan.jpg"))
    assert done.returncode in (0, 1), done.stderr
    assert "17 files, 147 kB" in done.stderr or "downloading 16 of 17 files" in done.stderr
    assert TOKEN not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_without_its_split_is_evaluated_and_exported_elsewhere(hub, evaluated, few_slices, tmp_path):
    """A run on real files, uploaded without what names them, on other data; then its bundle, which predicts."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    environment |= {"HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "stageproof", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode in (0, 1), done.stderr
        return done

    assert run("push", str(evaluated), "owner/r", "--license", "other").returncode == 0
    assert "split.csv" not in hub.repos["owner/r"].files
    sha = hub.repos["owner/r"].branches["main"]
    others = ["--data", str(few_slices), "--groups", str(few_slices / "groups.csv")]
    run("evaluate", "--from", "hf:owner/r", *others)
    copy = tmp_path / "hub" / f"owner--r-{sha[:12]}"
    facts = json.loads((copy / "evaluation-data" / "evaluation.json").read_text())
    assert facts["hub"] == {"repository": "owner/r", "revision": "main", "commit": sha}
    assert facts["data"]["patients"] == 40
    words = ["--to", "onnx", "--parity-data", str(few_slices), "--parity-images", "40", "--tolerance", "0.01"]
    done = run("export", "--from", f"hf:owner/r@{sha}", *words)
    assert done.returncode == 0, done.stderr
    provenance = read_manifest(tmp_path / "bundle").provenance
    assert provenance["hub"] == {"repository": "owner/r", "revision": sha, "commit": sha}
    assert run("push", "bundle", "owner/b").returncode == 0
    assert '"status"' in run("predict", "--from", "hf:owner/b", "--json", str(ROOT / "scan.jpg")).stdout
