"""What in a folder is an image, by its content; what is skipped, and that it is counted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stageproof.runtime.__main__ import main
from stageproof.runtime.images.folders import images_in, images_of

GREY = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)


def picture(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, form)
    return buffer.getvalue()


def plant(root: Path, **files: bytes) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def dicom(sop_class: str, *, preamble: bool = True) -> bytes:
    """The beginning of a DICOM file of this SOP class."""
    uid = sop_class.encode() + b"\0" * (len(sop_class) % 2)
    meta = b"\x02\0\0\0UL\x04\0" + bytes(4) + b"\x02\0\x02\0UI" + bytes([len(uid), 0]) + uid
    data = b"\x08\0\x16\0UI" + bytes([len(uid), 0]) + uid
    return (bytes(128) + b"DICM" + meta if preamble else b"") + data + bytes(200)


MR = "1.2.840.10008.5.1.4.1.1.4"


def names(found: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in found]


def test_files_named_by_uid(tmp_path: Path) -> None:
    for number in range(3):
        plant(tmp_path, **{f"1.2.840.113619.2.5.{number}": dicom(MR), f"series/IM{number:04}": dicom(MR)})
    plant(tmp_path, **{"old/1.3.12.2": dicom(MR, preamble=False), "odd.name": picture("PNG"), "scan": picture("JPEG")})
    found = images_in(tmp_path)
    assert len(found.images) == 9
    assert not found.skipped
    assert found.skipped_words() == ""


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "JPEG2000"])
def test_images_of_every_format_without_a_suffix(tmp_path: Path, form: str) -> None:
    plant(tmp_path, scan=picture(form))
    assert images_in(tmp_path).images == [tmp_path / "scan"]


def test_a_mixed_folder(tmp_path: Path) -> None:
    plant(tmp_path, **{"1.2.3.4": dicom(MR), "b.dcm": dicom(MR), "c.PNG": b"damaged", "d.dcm": b"damaged"})
    plant(
        tmp_path, **{"DICOMDIR": dicom("1.2.840.10008.1.3.10"), "README": b"P2 people were scanned", "notes.txt": b"x"}
    )
    plant(tmp_path, **{"report": dicom("1.2.840.10008.5.1.4.1.1.88.33"), "sub/state.dcm": dicom(f"{MR[:-2]}.11.1")})
    plant(tmp_path, **{".DS_Store": b"x", "__MACOSX/._b.dcm": b"x", "Thumbs.db": b"x", "._c.PNG": b"x"})
    plant(tmp_path, **{"brain.nii": bytes(344) + b"n+1\0" + bytes(99), "page": b"<html>", "nothing": b""})
    plant(tmp_path, **{"table.bin": np.random.default_rng(1).bytes(5000)})
    found = images_in(tmp_path)
    assert names(found.images, tmp_path) == ["1.2.3.4", "b.dcm", "c.PNG", "d.dcm"]
    assert found.skipped == {
        "hidden or left behind by a system": 4,
        "DICOMDIR": 1,
        "DICOM without an image": 2,
        "text": 2,
        "NIfTI volume": 1,
        "HTML page": 1,
        "empty": 1,
        "of another kind": 1,
    }
    assert found.skipped_words().startswith("skipped 13 files: 4 hidden or left behind by a system, ")
    assert "1 NIfTI volume" in found.skipped_words()


@pytest.mark.parametrize(
    "sop_class", [MR, f"{MR}.1", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.481.1", "1.2"]
)
@pytest.mark.parametrize("preamble", [True, False])
def test_dicom_with_an_image(tmp_path: Path, sop_class: str, preamble: bool) -> None:
    plant(tmp_path, one=dicom(sop_class, preamble=preamble))
    assert images_in(tmp_path).images == [tmp_path / "one"]


@pytest.mark.parametrize("end", ["88.11", "11.1", "9.1.1", "104.1", "66", "66.1", "481.3", "481.5", "4.2", "67"])
@pytest.mark.parametrize("preamble", [True, False])
def test_dicom_without_an_image(tmp_path: Path, end: str, preamble: bool) -> None:
    plant(tmp_path, **{"one.dcm": dicom(f"1.2.840.10008.5.1.4.1.1.{end}", preamble=preamble)})
    assert images_in(tmp_path).skipped == {"DICOM without an image": 1}


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    plant(tmp_path, **{"elsewhere/a.png": picture("PNG")})
    (tmp_path / "root").mkdir()
    (tmp_path / "root/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root/broken").symlink_to(tmp_path / "nowhere")
    found = images_in(tmp_path / "root")
    assert names(found.images, tmp_path) == ["root/link/a.png"]
    assert found.skipped == {"broken links, or links to folders already read": 1}


def test_paths_as_a_shell_gives_them(tmp_path: Path) -> None:
    plant(tmp_path, **{"a.png": b"x", "s/b.png": b"x", "__MACOSX/._a.png": b"x", "__MACOSX/s/._b.png": b"x"})
    plant(tmp_path, **{"Thumbs.db": b"x", "notes.txt": b"x", "empty/.keep": b""})
    found = images_of(sorted(tmp_path.iterdir()))
    assert names(found.images, tmp_path) == ["a.png", "empty", "notes.txt", "s/b.png"]  # as named, but for debris
    assert found.skipped == {"hidden or left behind by a system": 4}


def test_debris_alone_is_answered(tmp_path: Path) -> None:
    plant(tmp_path, **{"._a.png": b"x"})
    assert images_of([tmp_path / "._a.png"]).images == [tmp_path / "._a.png"]


def test_the_users_own_hidden_file_is_read_where_it_is_named(tmp_path: Path) -> None:
    plant(tmp_path, **{".scan.png": b"x", "a.png": b"x"})
    assert len(images_of([tmp_path / ".scan.png", tmp_path / "a.png"]).images) == 2


def test_a_folder_given_to_the_predictor(tmp_path: Path) -> None:
    from stageproof.runtime.errors import InputError
    from stageproof.runtime.inference.arguments import check_slices, several

    plant(tmp_path, **{"study/1.2.3.4": dicom(MR), "study/DICOMDIR": dicom("1.2.840.10008.1.3.10"), "none/a.txt": b"x"})
    for form in (str, Path):
        assert check_slices(form(tmp_path / "study")) == [tmp_path / "study/1.2.3.4"]
        with pytest.raises(InputError, match=r"is a folder without an image \(skipped 1 file: 1 text\)"):
            check_slices(form(tmp_path / "none"))
        with pytest.raises(InputError, match=r"images is the folder '.*', expected several images"):
            several(form(tmp_path / "study"))
    assert check_slices("x" * 5000) == ["x" * 5000]
    assert check_slices("scan\0.png") == ["scan\0.png"]


def test_the_command_on_a_folder_of_files_named_by_uid(
    bundle: Path, tmp_path: Path, phantoms, capsys: pytest.CaptureFixture
) -> None:
    dicoms = pytest.importorskip("tests.runtime.dicoms")
    for index in range(2):
        pixels = np.asarray(Image.open(io.BytesIO(phantoms.read(index))).convert("L"))
        plant(tmp_path, **{f"study/1.2.840.113619.2.5.{index}": dicoms.encoded(dicoms.dataset(pixels))})
    plant(tmp_path, **{"study/DICOMDIR": dicom("1.2.840.10008.1.3.10"), "study/__MACOSX/._a.dcm": b"x"})
    assert main(["--bundle", str(bundle), str(tmp_path / "study"), "--json"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["status"] for line in captured.out.splitlines()] == ["ok", "ok"]
    assert "skipped 2 files: 1 hidden or left behind by a system, 1 DICOMDIR" in captured.err
