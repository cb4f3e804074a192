"""Which path is the bundle: none by mistake, none unsaid, and none that may be an image."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runtime.__main__ import main
from runtime.command_paths import bundle_and_images
from runtime.errors import BundleError, InputError

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


def test_the_default_and_the_named_ones(here: Path) -> None:
    assert chosen("scan.png") == ("bundle", ["scan.png"])
    assert chosen("scans") == ("bundle", ["scans/0.png", "scans/1.png"])
    assert chosen("-") == ("bundle", ["-"])
    assert chosen() == ("bundle", [])
    bundle(here / "other")
    assert chosen("other", "scan.png") == ("other", ["scan.png"])
    assert chosen("scan.png", named="other") == ("other", ["scan.png"])
    assert chosen("other/model.onnx") == ("other/model.onnx", [])
    shutil.rmtree(here / "bundle")
    assert chosen("other/model.onnx", "scan.png") == ("other/model.onnx", ["scan.png"])


@pytest.mark.parametrize("first", ["bundl", "bundle/", "scam.png", "bundle/manifest.jsn", "no/such/folder", "x\ny.png"])
def test_a_first_path_that_does_not_exist_is_usage(here: Path, first: str) -> None:
    if first == "bundle/":
        shutil.rmtree(here / "bundle")
        bundle(here / "bundles")
    with pytest.raises((InputError, BundleError)) as refused:
        chosen(first, "scan.png")
    assert f"{Path(first)} does not exist" in str(refused.value)


def test_what_was_meant_is_suggested(here: Path) -> None:
    with pytest.raises(InputError, match=r"bundl does not exist: it is no image and no bundle\. Did you mean bundle\?"):
        chosen("bundl", "scan.png")


def test_later_paths_that_do_not_exist_are_answered_as_rejected(here: Path) -> None:
    assert chosen("scan.png", "none.png") == ("bundle", ["scan.png", "none.png"])
    assert chosen("none.png", named="bundle") == ("bundle", ["none.png"])


@pytest.mark.parametrize("name", ["000_localizer.pt2", "a.onnx", "a.ts", "a.safetensors", "a.engine", "a.xml"])
def test_a_file_among_images_never_becomes_the_model(here: Path, name: str) -> None:
    """What a pattern of a shell gives: the first of a folder's files."""
    (here / "scans" / name).write_bytes(b"code")
    with pytest.raises(InputError, match=rf"{name} is a model, and bundle is here too. Say which of them shall answer"):
        chosen(f"scans/{name}", "scans/0.png", "scans/1.png")
    assert chosen(f"scans/{name}", "scan.png", named="bundle") == ("bundle", [f"scans/{name}", "scan.png"])


@pytest.mark.parametrize("name", ["manifest.json", "model.pth", "model.bin", "model.pt"])
def test_a_part_of_a_model_is_no_image(here: Path, name: str) -> None:
    (here / name).write_bytes(b"{}")
    with pytest.raises(InputError, match=f"{name} is no image"):
        chosen(name, "scan.png")


def test_folders_that_are_no_whole_bundle(here: Path) -> None:
    bundle(here / "half")
    (here / "half" / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"half holds a model and no manifest\.json"):
        chosen("half", "scan.png")
    bundle(here / "damaged", '{"schema": 1, "mod')
    assert chosen("damaged", "scan.png")[0] == "damaged", "which loading refuses by name"
    (here / "empty").mkdir()
    with pytest.raises(InputError, match="empty is a folder that holds no image and is no bundle"):
        chosen("empty", "scan.png")
    assert chosen("scan.png", "empty")[1] == ["scan.png", "empty"]


def test_a_manifest_of_another_program_is_nobodys_bundle(here: Path) -> None:
    (here / "scans" / "manifest.json").write_text('{"name": "a web page", "icons": []}', encoding="utf-8")
    assert chosen("scans") == ("bundle", ["scans/0.png", "scans/1.png"])


def test_a_bundle_where_images_stand_is_refused(here: Path) -> None:
    """Else its golden images would be answered."""
    with pytest.raises(InputError, match="other is a bundle, and stands where images do"):
        chosen("scan.png", str(bundle(here / "other").relative_to(here)))
    with pytest.raises(InputError, match="other is a bundle, and stands where images do"):
        chosen("bundle", "other", "scan.png")


def test_the_command(bundle: Path, scan: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(bundle)
    assert main(["bundl", str(scan)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("InputError: bundl does not exist")
    assert main([str(scan), "--backend", "onnx"]) == 0
    assert capsys.readouterr().err.startswith("bundle bundle, SHA-256 ")
    assert main(["--bundle", "bundle/model.onnx", str(scan)]) == 0
    assert "lone artifact bundle/model.onnx, weights " in capsys.readouterr().err
    assert main(["bundle", "--self-test"]) in (0, 2)
    assert capsys.readouterr().err.startswith("bundle bundle, SHA-256 ")
    with pytest.raises(SystemExit) as usage:
        main(["--bundle", "bundle"])
    assert usage.value.code == 2
    assert "no image was given" in capsys.readouterr().err
