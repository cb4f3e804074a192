"""Which path is the bundle: none by mistake, none unsaid, and none that may be an image."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from stageproof.runtime.__main__ import main
from stageproof.runtime.cli.paths import bundle_and_images
from stageproof.runtime.errors import InputError

OURS = '{"schema": 1, "model": {}, "artifacts": []}'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantoms) -> Path:
    """A working folder with a default bundle, as far as paths tell, and two scans."""
    monkeypatch.chdir(tmp_path)
    bundle(tmp_path / "bundle")
    (tmp_path / "scans").mkdir()
    for index in range(2):
        (tmp_path / "scans" / f"{index}.png").write_bytes(phantoms.read(index))
    shutil.copy(tmp_path / "scans/0.png", tmp_path / "scan.png")
    return tmp_path


def bundle(folder: Path, manifest: str = OURS) -> Path:
    (folder / "golden").mkdir(parents=True)
    (folder / "golden" / "0.png").write_bytes(b"png")
    (folder / "model.onnx").write_bytes(b"onnx")
    (folder / "manifest.json").write_text(manifest, encoding="utf-8")
    return folder


def chosen(*paths: str, named: str | None = None) -> tuple[str, list[str]]:
    bundle, found = bundle_and_images([Path(path) for path in paths], Path(named) if named else None)
    return str(bundle), [str(image) for image in found.images]


def test_only_the_named_one_is_the_model(here: Path) -> None:
    bundle(here / "other")
    assert chosen("scan.png", named="other") == ("other", ["scan.png"])
    assert chosen("scans", named="other") == ("other", ["scans/0.png", "scans/1.png"])
    assert chosen("-", named="other") == ("other", ["-"])
    assert chosen(named="other") == ("other", [])
    assert chosen("scan.png", named="other/model.onnx") == ("other/model.onnx", ["scan.png"])
    assert chosen("scan.png", "none.png", named="other") == ("other", ["scan.png", "none.png"])


@pytest.mark.parametrize(
    "paths", [(), ("scan.png",), ("bundle", "scan.png"), ("bundle/model.onnx", "scan.png"), ("-",)]
)
def test_without_one_nothing_answers(here: Path, paths: tuple[str, ...]) -> None:
    """Row 9: whoever brings the images can bring a folder called bundle."""
    with pytest.raises(InputError, match=r"no bundle was given\. .*python -m runtime --bundle bundle "):
        chosen(*paths)
    shutil.rmtree(here / "bundle")
    with pytest.raises(InputError, match=r"no bundle was given\. Make one with: python -m export --out bundle"):
        chosen("scan.png")


def test_the_command_that_was_meant_is_quoted_for_a_shell(here: Path) -> None:
    bundle(here / "my bundle; rm -rf x")
    with pytest.raises(InputError) as refused:
        chosen("my bundle; rm -rf x", "scan.png")
    assert "--bundle 'my bundle; rm -rf x' scan.png" in str(refused.value)


MODELS = ["000_localizer.pt2", "a.onnx", "a.ts", "a.safetensors", "a.engine", "a.xml", "manifest.json", "a.pth"]


@pytest.mark.parametrize("name", MODELS)
def test_a_file_among_images_never_becomes_the_model(here: Path, name: str) -> None:
    """Row 3: what a pattern of a shell gives, the first of a folder's files."""
    (here / "scans" / name).write_bytes(b"code")
    found = chosen(f"scans/{name}", "scans/0.png", named="bundle")
    assert found == ("bundle", [f"scans/{name}", "scans/0.png"])


def test_a_folder_with_a_manifest_is_an_image_that_fails(here: Path) -> None:
    """Row 3: a patient's folder with a model of its own answered the next patient."""
    bundle(here / "patient")
    assert chosen("scan.png", "patient", "scans", named="bundle") == (
        "bundle",
        ["scan.png", "patient", "scans/0.png", "scans/1.png"],
    )
    assert chosen("patient", named="bundle") == ("bundle", ["patient"])


def test_a_manifest_of_another_program_is_nobodys_bundle(here: Path) -> None:
    for other in ('{"name": "a web page", "icons": []}', "[1", "[" * 100_000, '{"schema": 1}', '"\xff"'):
        (here / "scans" / "manifest.json").write_text(other, encoding="utf-8")
        assert chosen("scans", named="bundle") == ("bundle", ["scans/0.png", "scans/1.png"])


def test_a_manifest_that_would_never_end_stops_nothing(here: Path) -> None:
    os.mkfifo(here / "scans" / "manifest.json")
    assert chosen("scans", named="bundle")[1][:2] == ["scans/0.png", "scans/1.png"]
    (here / "scans" / "manifest.json").unlink()
    (here / "scans" / "manifest.json").symlink_to("/dev/zero")
    assert chosen("scans", named="bundle")[1][:2] == ["scans/0.png", "scans/1.png"]


def test_the_command(bundle: Path, scan: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(bundle)
    assert main([str(scan)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("InputError: no bundle was given.")
    assert main(["--bundle", "bundle", str(scan), "--backend", "onnx"]) == 0
    assert capsys.readouterr().err.startswith("bundle bundle, SHA-256 ")
    assert main(["--bundle", "bundle/model.onnx", str(scan)]) == 0
    assert "lone artifact bundle/model.onnx, weights " in capsys.readouterr().err
    assert main(["--bundle", "bundle", "--self-test"]) in (0, 2)
    assert capsys.readouterr().err.startswith("bundle bundle, SHA-256 ")
    with pytest.raises(SystemExit) as usage:
        main(["--bundle", "bundle"])
    assert usage.value.code == 2
    assert "no image was given" in capsys.readouterr().err


def test_a_planted_model_is_answered_as_an_image_that_cannot_be_read(
    bundle: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    planted = tmp_path / "000_localizer.pt2"
    planted.write_bytes((bundle / "model.ts").read_bytes())
    shutil.copytree(bundle, tmp_path / "patient")
    status = main(["--bundle", str(bundle), "--backend", "onnx", str(planted), str(tmp_path / "patient"), str(scan)])
    captured = capsys.readouterr()
    assert status == 1
    assert captured.err.startswith(f"bundle {bundle}, SHA-256 ")
    assert captured.out.count("  rejected: ") == 2
    assert captured.out.count("(CDR ") == 1
