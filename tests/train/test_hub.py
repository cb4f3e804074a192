"""Runs and bundles from a hub: what is downloaded, and what is refused. The client is the library itself."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from stageproof.runtime.__main__ import main as predict
from stageproof.runtime.bundle.manifest import UNSEALED, read_manifest, seal
from stageproof.runtime.cli.sources import local_source
from stageproof.runtime.errors import BundleError, CheckpointError, HubError, InputError
from stageproof.train.hub.fetch import fetch
from stageproof.train.hub.reference import Repository, parse_reference
from tests.train.hub_server import TOKEN

ROOT = Path(__file__).resolve().parents[2]
BUNDLE, RUN = ROOT / "tests" / "data" / "bundle-0.1", ROOT / "tests" / "data" / "run-0.1"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def everything(tmp_path: Path) -> set[str]:
    """Every file below the test's folder."""
    return {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}


@pytest.fixture
def offline(monkeypatch):
    """Called: from now on HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return lambda: monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize(
    ("text", "repository"),
    [
        ("hf:owner/name", Repository("owner/name", "main")),
        ("hf:owner/na.me_2@v1.0", Repository("owner/na.me_2", "v1.0")),
        ("hf:owner/name@refs/pr/3", Repository("owner/name", "refs/pr/3")),
        ("hf:owner/name@" + "ab" * 20, Repository("owner/name", "ab" * 20)),
    ],
)
def test_a_reference(text, repository):
    assert parse_reference(text) == repository


@pytest.mark.parametrize(
    "text",
    [
        *("hf:", "hf:name", "hf:/name", "hf:owner/", "hf:a/b/c", "hf:datasets/owner/name", "hf:../name", "hf:owner/.."),
        *(
            "hf:owner/na me",
            "hf:owner/name@",
            "hf:owner/name@a b",
            "hf:owner/name@../x",
            "hf:owner/name@-x",
            "owner/name",
        ),
        *(
            "hf:owner/a--b",
            "hf:owner/name.git",
            "hf:own\ner/name",
            "hf:owner/name@x\n",
            "hf:ow%2ener/x",
            "hf://owner/name",
        ),
        "hf:owner/" + "x" * 100,
    ],
)
def test_what_is_no_reference(text):
    with pytest.raises(InputError, match=r"Expected hf:OWNER/NAME|expected a branch, a tag or a commit"):
        parse_reference(text)


def test_a_bundle_is_downloaded_and_predicts(hub, said, capsys):
    sha = hub.add("owner/b", {**files_of(BUNDLE), "README.md": b"# Hello"}).branches["main"]
    assert predict(["--from", "hf:owner/b", str(ROOT / "scan.jpg"), "--json"]) in (0, 1)
    answer = json.loads(capsys.readouterr().out)
    assert predict(["--bundle", str(BUNDLE), str(ROOT / "scan.jpg"), "--json"]) in (0, 1)
    local = json.loads(capsys.readouterr().out)
    assert answer["probabilities"] == local["probabilities"]
    assert f"hf:owner/b: main is commit {sha}" in said
    assert any("downloading 16 of 17 files, 129 kB" in line for line in said)  # the manifest came first
    assert predict(["--from", "hf:owner/b", str(ROOT / "scan.jpg")]) in (0, 1)
    assert any("17 files, 147 kB, in the cache" in line for line in said)


def test_the_folder_has_the_files_of_the_manifest_and_no_links(hub):
    sha = hub.add("owner/b", {**files_of(BUNDLE), "README.md": b"# Hello"}).branches["main"]
    folder = fetch("hf:owner/b", "bundle")
    assert folder.name == sha
    assert files_of(folder) == files_of(BUNDLE)
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_a_file_that_is_no_part_is_not_requested(hub, said):
    extra = {"modeling_evil.py": b"import os", "golden/evil.py": b"x", "pytorch_model.bin": b"pickle"}
    hub.add("owner/b", {**files_of(BUNDLE), **extra})
    folder = fetch("hf:owner/b", "bundle")
    assert files_of(folder) == files_of(BUNDLE)
    assert [path for _, path, _ in hub.requests if "evil" in path or "pytorch_model" in path] == []
    assert any("not downloaded, since no part of a bundle: golden/evil.py, modeling_evil.py" in line for line in said)


def test_code_needs_trust(hub, capsys):
    hub.add("owner/b", files_of(BUNDLE))
    assert predict(["--from", "hf:owner/b", str(ROOT / "scan.jpg"), "--backend", "torchscript"]) == 2
    assert "TrustError" in capsys.readouterr().err


def test_a_commit_is_pinned(hub, said):
    repo = hub.add("owner/b", files_of(BUNDLE))
    old = repo.branches["main"]
    new = repo.commit({"manifest.json": b"{}"})
    assert fetch(f"hf:owner/b@{old}", "bundle").name == old
    with pytest.raises(BundleError, match=r"lacks 'schema'|has schema None"):
        fetch("hf:owner/b", "bundle")
    assert f"hf:owner/b: main is commit {new}" in said


def test_a_branch_that_moves_meanwhile(hub):
    repo = hub.add("owner/b", files_of(BUNDLE))
    old = repo.branches["main"]
    repo.commit(files_of(BUNDLE))
    hub.claims["sha"] = old
    with pytest.raises(HubError, match=r"main moved from commit .* Run the command again"):
        fetch("hf:owner/b", "bundle")


@pytest.mark.parametrize("sha", ["../../etc", "main", "", "ab" * 20])
def test_a_commit_that_is_none_or_another(sha, hub, tmp_path):
    repo = hub.add("owner/b", files_of(BUNDLE))
    hub.claims["sha"] = sha
    with pytest.raises(HubError, match=rf"the Hub names the commit '{sha}' for"):
        fetch(f"hf:owner/b@{repo.branches['main']}", "bundle")
    assert everything(tmp_path) == set()


def test_the_token_is_sent_to_the_hub_alone(hub):
    hub.add("owner/b", files_of(BUNDLE), private=True)
    fetch("hf:owner/b", "bundle")
    sent = {path.split("/")[1] for _, path, authorization in hub.requests if authorization}
    assert sent == {"api", "owner"}  # and not lfs, which is on another host
    assert hub.asked("GET", "/lfs/")


def resealed(change) -> bytes:
    """The manifest of the bundle, changed and sealed again."""
    data = json.loads((BUNDLE / "manifest.json").read_text())
    change(data)
    data["sha256"] = UNSEALED
    return seal(json.dumps(data)).encode()


def escaping(data: dict) -> None:
    data["documents"][0]["file"] = "../../evil"


REFUSED = {
    "a changed artifact": (
        {"model.onnx": b"\0" * 2708},
        BundleError,
        "at commit .* is refused: .*model.onnx has SHA-256",
    ),
    "an artifact of another size": ({"model.onnx": b"x"}, BundleError, "is refused: .*model.onnx has SHA-256"),
    "a changed golden image": ({"golden/00.png": b"x"}, BundleError, "is refused: .*00.png has SHA-256"),
    "a manifest that was edited": (
        {"manifest.json": (BUNDLE / "manifest.json").read_bytes().replace(b'"abababab', b'"acababab')},
        BundleError,
        "was changed after export",
    ),
    "a manifest that is no JSON": ({"manifest.json": b"version https://git-lfs"}, BundleError, "is not JSON"),
    "a manifest of a path outside": ({"manifest.json": resealed(escaping)}, BundleError, "not a relative path inside"),
    "a listed file is missing": (
        {"model.xml": None},
        BundleError,
        "lacks files that its manifest.json lists: model.xml",
    ),
    "no manifest": ({"manifest.json": None}, InputError, "neither a run .* nor a bundle .* it contains golden/00.png"),
    "a run as well": ({"run.json": b"{}"}, InputError, "contains both run.json and manifest.json"),
    "a huge manifest": ({"manifest.json": b" " * (5 << 20)}, InputError, "5.2 MB, expected at most 4.2 MB"),
    "a name that leaves the folder": ({"../../evil.py": b"x"}, InputError, r"a file called '../../evil.py'"),
    "an absolute name": ({"/tmp/evil.py": b"x"}, InputError, "a file called '/tmp/evil.py'"),
    "a name of Windows": ({"..\\evil.py": b"x"}, InputError, "which is not a relative path"),
    "a name with a line end": ({"evil\nx": b"x"}, InputError, r"a file called 'evil\\nx'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bundle_that_is_refused(what, hub, tmp_path):
    changes, kind, match = REFUSED[what]
    files = {**files_of(BUNDLE), **changes}
    hub.add("owner/b", {name: content for name, content in files.items() if content is not None})
    with pytest.raises(kind, match=match):
        fetch("hf:owner/b", "bundle")
    left = everything(tmp_path)
    assert all(name.startswith("hf/hub/") for name in left)  # the library's cache alone; no folder to load from
    assert not any("evil" in name for name in left)


def test_another_kind_is_named(hub):
    hub.add("owner/r", files_of(RUN))
    hub.add("owner/b", files_of(BUNDLE))
    hub.add("owner/other", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    hub.add("owner/empty", {})
    with pytest.raises(InputError, match=r"is a run, expected a bundle. Export the run first: .* --from hf:owner/r"):
        fetch("hf:owner/r", "bundle")
    with pytest.raises(InputError, match=r"is a bundle, expected a run. Predict with it: .* --from hf:owner/b"):
        fetch("hf:owner/b", "run")
    with pytest.raises(InputError, match=r"it contains config.json, pytorch_model.bin. Nothing was downloaded"):
        fetch("hf:owner/other", "run")
    with pytest.raises(InputError, match=r"it contains no files"):
        fetch("hf:owner/empty", "run")
    assert hub.asked("GET", "/resolve/") == []


def commands() -> dict[str, tuple[str, str, list[str]]]:
    """Command → its module, the kind that it does not take, and its further words."""
    return {
        "predict": ("stageproof.runtime.__main__", "run", ["scan.jpg"]),
        "explain": ("stageproof.runtime.explain.__main__", "run", ["scan.jpg"]),
        "benchmark": ("stageproof.benchmarks.__main__", "run", []),
        "bisect": ("stageproof.export.bisect.__main__", "run", []),
        "export": ("stageproof.export.__main__", "bundle", []),
        "evaluate": ("stageproof.train.evaluate.__main__", "bundle", []),
    }


@pytest.mark.parametrize("command", commands())
def test_every_command_that_takes_a_run_or_a_bundle_takes_a_repository(command, hub, capsys):
    module, other, words = commands()[command]
    hub.add("owner/run", files_of(RUN))
    hub.add("owner/bundle", files_of(BUNDLE))
    main = import_module(module).main
    assert main(["--from", f"hf:owner/{other}", *words]) == 2
    assert re.search(rf"hf:owner/{other} at commit \w+ is a {other}, expected a", capsys.readouterr().err)
    assert main(["--from", "nowhere", *words]) == 2
    assert "nowhere" in capsys.readouterr().err
    if command != "predict":
        assert main([*(["somewhere"] if command != "explain" else ["somewhere", "scan.jpg"]), "--from", "nowhere"]) == 2
        assert "and --from both name the" in capsys.readouterr().err


def test_access(hub, monkeypatch, capsys):
    hub.add("owner/private", files_of(BUNDLE), private=True)
    hub.add("owner/gated", files_of(BUNDLE), gated=True)
    hub.add("owner/b", files_of(BUNDLE))
    assert fetch("hf:owner/private", "bundle").is_dir()
    with pytest.raises(InputError, match=r"hf:owner/gated is gated: .* Ask at http"):
        fetch("hf:owner/gated", "bundle")
    with pytest.raises(InputError, match=r"has no revision 'nowhere'. Give a branch, a tag or a commit"):
        fetch("hf:owner/b@nowhere", "bundle")
    with pytest.raises(InputError, match=r"has no revision"):
        fetch("hf:owner/b@" + "ab" * 20, "bundle")
    with pytest.raises(InputError, match=r"does not exist, or the token in use has no access to it"):
        fetch("hf:owner/nowhere", "bundle")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(InputError, match=r"refused the request \(401\): the token in use does not permit it") as caught:
        fetch("hf:owner/private", "bundle")
    assert "hf_wrong" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        InputError, match=r"it is private and no token was sent. Check the name. Log in with: hf auth login"
    ):
        fetch("hf:owner/private", "bundle")
    assert TOKEN not in "".join(capsys.readouterr())


def test_a_hub_that_cannot_be_reached(hub, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        HubError, match=r"at http://127.0.0.1:9 cannot be used: ConnectError: .*refused.*HF_HUB_OFFLINE=1"
    ):
        fetch("hf:owner/b", "bundle")


@pytest.mark.parametrize("status", [1, 500])
def test_a_hub_that_fails(hub, status):
    hub.add("owner/b", files_of(BUNDLE))
    hub.fault = lambda method, path: status if "/api/models" in path else 0
    with pytest.raises(HubError, match=r"answered: .*500|cannot be used: RemoteProtocolError"):
        fetch("hf:owner/b", "bundle")


def test_a_download_that_is_interrupted_is_continued(hub):
    hub.add("owner/b", files_of(BUNDLE))
    hub.fault = lambda method, path: 403 if method == "GET" and "/lfs/" in path else 0
    with pytest.raises(InputError, match=r"refused the request \(403\)"):
        fetch("hf:owner/b", "bundle")
    hub.fault = lambda method, path: 0
    hub.requests.clear()
    assert files_of(fetch("hf:owner/b", "bundle")) == files_of(BUNDLE)
    assert hub.asked("GET", "manifest.json") == []  # it was downloaded before


def test_offline(hub, offline):
    hub.add("owner/b", files_of(BUNDLE))
    hub.add("owner/r", files_of(RUN))
    folder, run = fetch("hf:owner/b", "bundle"), fetch("hf:owner/r", "run")
    shutil.rmtree(folder)  # the library's cache alone
    offline()
    hub.requests.clear()
    assert files_of(fetch("hf:owner/b", "bundle")) == files_of(BUNDLE)
    assert fetch(f"hf:owner/b@{folder.name}", "bundle") == folder
    assert fetch("hf:owner/r", "run") == run
    with pytest.raises(HubError, match=r"hf:owner/other is not in the cache .* HF_HUB_OFFLINE is set"):
        fetch("hf:owner/other", "bundle")
    with pytest.raises(HubError, match=r"hf:owner/b@v2 is not in the cache"):
        fetch("hf:owner/b@v2", "bundle")
    assert hub.requests == []


def test_offline_with_a_part_of_a_bundle(hub, offline):
    hub.add("owner/b", files_of(BUNDLE))
    hub.fault = lambda method, path: 403 if "/lfs/" in path else 0
    with pytest.raises(InputError):
        fetch("hf:owner/b", "bundle")
    offline()
    with pytest.raises(HubError, match=r"is not whole in the cache .* missing, and HF_HUB_OFFLINE is set"):
        fetch("hf:owner/b", "bundle")


def test_a_checkout_that_was_damaged_is_made_again(hub):
    hub.add("owner/b", files_of(BUNDLE))
    folder = fetch("hf:owner/b", "bundle")
    (folder / "model.onnx").unlink()
    (folder / "added.py").touch()
    assert files_of(fetch("hf:owner/b", "bundle")) == files_of(BUNDLE)


def test_a_run(hub):
    sha = hub.add("owner/r", {**files_of(RUN), "setup.py": b"x"}).branches["main"]
    folder = fetch("hf:owner/r@main", "run")
    assert set(files_of(folder)) == set(files_of(RUN))
    record = json.loads((folder / "run.json").read_text())
    assert record.pop("hub") == {"repository": "owner/r", "revision": "main", "commit": sha}
    assert record == json.loads((RUN / "run.json").read_text())


def changed_record(**changes) -> bytes:
    record = json.loads((RUN / "run.json").read_text())
    for key, value in changes.items():
        place, _, last = key.rpartition("__")
        (record[place] if place else record)[last] = value
    return json.dumps(record).encode()


def test_a_run_names_no_path_of_this_machine(hub, few_slices):
    """A repository that names a folder of the user as the data of its run: it is not read."""
    hub.add("owner/r", {**files_of(RUN), "run.json": changed_record(options__data=str(few_slices))})
    record = json.loads((fetch("hf:owner/r", "run") / "run.json").read_text())
    assert record["options"]["data"] == "<data>"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"model.safetensors": None},
            "has no model.safetensors, the weights of a run: it contains metrics.jsonl, run.json",
        ),
        ({"model.safetensors": b"x" * 2352}, "is refused: model.safetensors has SHA-256 .* expected 0b473472da5f"),
        ({"run.json": b"[]"}, "run.json is a JSON list"),
        ({"run.json": b"[" * 100_000}, "run.json is not JSON"),
        ({"run.json": b'{"schema": 1, "x": NaN}'}, "has NaN"),
        ({"run.json": changed_record(schema=2)}, "has schema 2, this version reads 1"),
        ({"run.json": changed_record(options=None)}, "options.data of run.json is missing"),
        ({"run.json": changed_record(options__data=3)}, "options.data of run.json is int"),
        ({"run.json": changed_record(labels="x")}, "labels of run.json is str"),
        ({"run.json": changed_record(weights_sha256="../x")}, "weights_sha256 of run.json is not a SHA-256"),
    ],
)
def test_a_run_that_is_refused(changes, match, hub, tmp_path):
    files = {**files_of(RUN), **changes}
    hub.add("owner/r", {name: content for name, content in files.items() if content is not None})
    with pytest.raises(CheckpointError, match=match):
        fetch("hf:owner/r", "run")
    assert all(name.startswith("hf/hub/") for name in everything(tmp_path))


def test_a_copy_to_work_on_leaves_the_downloaded_run_as_it_was(hub, tmp_path, said):
    hub.add("owner/r", files_of(RUN))
    copy = fetch("hf:owner/r", "run", copy=True)
    original = fetch("hf:owner/r", "run")
    assert copy == Path("hub") / f"owner--r-{original.name[:12]}"
    before = files_of(original)
    (copy / "run.json").write_text("changed")
    (copy / "metrics.jsonl").write_text("changed")
    assert fetch("hf:owner/r", "run", copy=True) == copy
    assert (copy / "run.json").read_text() == "changed"
    assert any(f"{copy} is the copy of an earlier call" in line for line in said)
    assert files_of(fetch("hf:owner/r", "run")) == before


def test_the_commit_is_in_the_provenance_of_an_export(hub, monkeypatch):
    from stageproof.export.reference.model import from_run
    from stageproof.train.networks import ARCHITECTURES
    from tests import tiny

    sha = hub.add("owner/r", files_of(RUN)).branches["main"]
    monkeypatch.setitem(ARCHITECTURES, tiny.NAME, tiny.build)
    provenance = from_run(fetch("hf:owner/r", "run")).provenance
    assert provenance["hub"] == {"repository": "owner/r", "revision": "main", "commit": sha}


def test_a_source_is_a_path_or_a_repository(hub, tmp_path):
    hub.add("owner/b", files_of(BUNDLE))
    assert local_source(None, None, "bundle", "--bundle") is None
    assert local_source(BUNDLE, None, "bundle", "--bundle") == BUNDLE
    assert local_source(None, str(BUNDLE), "bundle", "--bundle") == BUNDLE
    assert read_manifest(local_source(None, "hf:owner/b", "bundle", "--bundle"))
    Path("hf:here").mkdir()
    assert local_source(None, "hf:here", "bundle", "--bundle") == Path("hf:here")
    with pytest.raises(InputError, match=r"RUN and --from both name the run. Give one of them"):
        local_source(Path("run"), "hf:owner/r", "run", "RUN")
    with pytest.raises(InputError, match=r"hf:owner/r is not a path. Give a remote run with: --from hf:owner/r"):
        local_source(Path("hf:owner/r"), None, "run", "RUN")
    with pytest.raises(InputError, match=r"is a URL. Write --from hf:owner/b"):
        local_source(None, "https://example.org/owner/b", "bundle", "--bundle")
    with pytest.raises(InputError, match=r"--from is empty"):
        local_source(None, "", "bundle", "--bundle")


def test_a_path_needs_no_library_and_no_connection():
    """The process of a prediction without a remote source, in which every use of a network ends it."""
    code = (
        "import sys\n"
        "def hook(event, given):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.bind') and given[0].family != 1:\n"
        "        raise SystemExit(f'{event} {given}')\n"
        "sys.addaudithook(hook)\n"
        "from stageproof.runtime.__main__ import main\n"
        f"status = main(['--from', {str(BUNDLE)!r}, {str(ROOT / 'scan.jpg')!r}])\n"
        "loaded = {'huggingface_hub', 'stageproof.train'} & set(sys.modules)\n"
        "sys.exit(3 if loaded or status > 1 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
