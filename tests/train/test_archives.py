"""Zip archives, shards and saved datasets that are damaged, incomplete or malicious; files that are no data set."""

from __future__ import annotations

import gzip
import json
import os
import stat
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime.errors import DatasetError
from stageproof.train.data.sources import zip_archive
from stageproof.train.data.sources.source import has_no_labels, load_parts, load_samples
from tests import cohort as of
from tests.cohort import cohort

PNG = cohort(2)[0].png


def archive(path: Path, **more: bytes) -> Path:
    """A zip archive of two class folders, with other members."""
    with zipfile.ZipFile(path, "w") as made:
        for one in cohort(2):
            made.writestr(f"{one.label}/{one.name}", one.png)
        for name, content in more.items():
            made.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../out.png", "CN/../../out.png", "/etc/out.png", "..\\out.png", "C:/out.png"])
def test_members_outside_the_archive(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.zip", **{name: PNG})
    with pytest.raises(DatasetError, match=r"a\.zip has a member outside the archive, .*out\.png"):
        load_samples(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zip"]


def test_debris_and_links_are_counted(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", **{"__MACOSX/CN/._1.png": b"x", "CN/.DS_Store": b"x", "AD/Thumbs.db": b"x"})
    link = zipfile.ZipInfo("CN/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as made:
        made.writestr(link, "/etc/passwd")
    samples = load_samples(path)
    assert len(samples) == len(cohort(2))
    told = [str(one) for one in samples.skipped]
    assert told == [
        "3 hidden files, or files created by macOS or Windows",
        "1 links in the archive, such as CN/link.png",
    ]


def test_names_of_old_windows_programs(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for one in cohort(2):
            made.writestr(f"{one.label}\\{one.name}", one.png)
    assert sorted(load_samples(tmp_path / "a.zip").names) == sorted(f"{one.label}/{one.name}" for one in cohort(2))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    samples = load_samples(archive(tmp_path / "a.zip"))
    assert samples.read(0)
    with pytest.raises(DatasetError, match=rf"{tmp_path}/b.zip, class folders: the classes 'AD', 'CN', 'masks' are"):
        load_samples(archive(tmp_path / "b.zip", **{"masks/1.png": PNG}))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_archives_in_archives_and_archives_that_are_something_else(tmp_path: Path) -> None:
    inner = archive(tmp_path / "inner.zip").read_bytes()
    for name in ("CN/more.zip", "CN/image.png"):
        with pytest.raises(DatasetError, match=f"has another archive inside, '{name}'"):
            load_samples(archive(tmp_path / "a.zip", **{name: inner}))
    np.savez(tmp_path / "a.npz", images=np.zeros(3), labels=np.zeros(3))
    with pytest.raises(DatasetError, match=r"is a NumPy archive \(\.npz\); expected a folder of class folders"):
        load_samples(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as made:
        made.writestr("[Content_Types].xml", "<Types/>")
        made.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(DatasetError, match=r"is an Office document, such as Excel's \.xlsx.* save its table as CSV"):
        load_samples(tmp_path / "a.xlsx")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DatasetError, match="is an empty zip archive"):
        load_samples(tmp_path / "empty.zip")


def test_encrypted_and_doubled_members(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    data[6] |= 1  # general purpose flags of the first member (APPNOTE 4.4.4), and those in the directory
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"is encrypted \('CN/OAS1_0000_MR1_0\.png'\)\. Unpack it"):
        load_samples(path)
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as made:
        made.writestr("CN/a.png", PNG)
        made.writestr("CN/b.png", PNG[:9])
    (tmp_path / "b.zip").write_bytes((tmp_path / "b.zip").read_bytes().replace(b"CN/b.png", b"CN/a.png"))
    with pytest.raises(DatasetError, match=r"has 'CN/a\.png' twice"):
        load_samples(tmp_path / "b.zip")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CN//OAS1_0000_MR1_0.png", "has 'CN//OAS1_0000_MR1_0.png' twice"),
        ("CN/./OAS1_0000_MR1_0.png", "has 'CN/./OAS1_0000_MR1_0.png' twice"),
        ("CN", "has 'CN' both as a file and as a folder"),
        (f"CN/{'a' * 300}.png", r"cannot be unpacked: File name too long\. Unpack it with a tool"),
    ],
)
def test_names_that_no_folder_can_have(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        load_samples(archive(tmp_path / "a.zip", **{name: PNG}))


def test_a_folder_beside_a_readme_is_the_content(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for one in cohort(2):
            made.writestr(f"slices/{one.label}/{one.name}", one.png)
        made.writestr("README.md", "text")
    samples, part = load_parts(tmp_path / "a.zip")
    assert part is None
    assert len(samples) == len(cohort(2))


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", **{"CN/ä.png": PNG})
    path.write_bytes(path.read_bytes().replace("ä".encode(), b"\xe4\xff"))
    with pytest.raises(DatasetError, match=r"a\.zip cannot be read as a zip archive: .*Copy it again, or unpack it"):
        load_samples(path)


def test_damaged_archives(tmp_path: Path) -> None:
    whole = archive(tmp_path / "a.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"b\.zip cannot be read as a zip archive: .*Copy it again"):
        load_samples(tmp_path / "b.zip")
    broken = bytearray(whole)
    broken[100] ^= 255
    (tmp_path / "c.zip").write_bytes(broken)
    with pytest.raises(DatasetError, match=r"c\.zip cannot be read as a zip archive: Bad CRC-32"):
        load_samples(tmp_path / "c.zip")


def test_bombs_are_refused_before_anything_is_unpacked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(zip_archive, "_UNCHECKED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        for number in range(3):
            made.writestr(f"CN/{number}.png", bytes(1 << 20))
    with pytest.raises(DatasetError, match=r"has 0\.\d MB that unpack to 3 MB, as archives made to exhaust memory"):
        load_samples(tmp_path / "a.zip")
    monkeypatch.setattr(zip_archive, "LARGEST", 1000)
    with pytest.raises(DatasetError, match=r"members of 0\.0 GB; at most"):
        load_samples(archive(tmp_path / "b.zip"))


def test_a_member_that_is_larger_than_declared(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("CN/a.png", bytes(5000))
    data = (tmp_path / "a.zip").read_bytes().replace(struct.pack("<I", 5000), struct.pack("<I", 10))
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(DatasetError, match=r"a\.zip"):
        load_samples(tmp_path / "a.zip")


def test_a_table_in_an_archive_reads_nothing_outside_it(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    for place in (str(tmp_path / "secret.png"), "../../../../../../../../../../.." + str(tmp_path / "secret.png")):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
            made.writestr("in.png", PNG)
            made.writestr("list.csv", f"path,label\nin.png,CN\n{place},AD\n")
        with pytest.raises(DatasetError, match="lists a file outside the archive"):
            load_samples(tmp_path / "a.zip")


def test_two_tables_in_a_folder(tmp_path: Path) -> None:
    path = of.csv(cohort(2), tmp_path / "a")
    (path.parent / "more.csv").write_bytes(path.read_bytes())
    with pytest.raises(DatasetError, match=r"several tables of slices: 'more\.csv', 'slices\.csv'\. Give one"):
        load_samples(path.parent)


def test_shards_that_are_incomplete_or_of_two_writings(tmp_path: Path) -> None:
    root = of.shards(cohort(2), tmp_path / "a")
    first, second = sorted((root / "data").iterdir())
    for path in (root, second):
        assert len(load_samples(path)) == len(cohort(2))  # a shard stands for its split
    second.rename(root / "data" / "train-00001-of-00003.parquet")
    with pytest.raises(DatasetError, match="has shards of several writings of 'train'"):
        load_samples(root)
    (root / "data" / "train-00001-of-00003.parquet").unlink()
    for path in (root, first):
        with pytest.raises(DatasetError, match="1 shards of 'train' are missing, the first is number 00001"):
            load_samples(path)


def test_parquet_files_that_do_not_belong_together(tmp_path: Path) -> None:
    one = of.parquet(cohort(2), tmp_path / "a")
    (one.parent / "other.parquet").write_bytes(one.read_bytes())
    with pytest.raises(DatasetError, match=r"unclear how they belong together: 'all\.parquet', 'other\.parquet'"):
        load_samples(one.parent)
    (one.parent / "other.parquet").unlink()
    (one.parent / "notes.txt").write_text("x")
    samples = load_samples(one.parent)
    assert [str(skipped) for skipped in samples.skipped] == ["1 files beside the parquet files, such as notes.txt"]


@pytest.mark.parametrize("layout", ["shards of two splits", "save_to_disk of a DatasetDict", "train and test folders"])
def test_one_part_at_a_time_is_trained_on(tmp_path: Path, layout: str) -> None:
    root = of.LAYOUTS[layout](cohort(3), tmp_path / "a")
    with pytest.raises(DatasetError, match=r"Train on one of them: --data (\S+)\. Then .* --data (\S+)\. To") as caught:
        load_samples(root)
    words = str(caught.value).split("--data ")
    training, test = (load_samples(Path(word.split(" ")[0].rstrip("."))) for word in words[1:3])
    samples, part = load_parts(root)
    assert part is not None
    assert len(training) == int((part == "train").sum())
    assert len(test) == int((part == "test").sum())
    assert training.classes == test.classes == samples.classes


@pytest.mark.parametrize("layout", ["shards of two splits", "save_to_disk of a DatasetDict", "train and test folders"])
@pytest.mark.parametrize("zipped", [False, True])
def test_training_reads_the_training_part_and_counts_the_others(tmp_path: Path, layout: str, zipped: bool) -> None:
    slices = [one for one in cohort(3) if int(one.patient[-4:]) in (0, 3, 5, 6, 7, 8, 9, 11)]
    assert [one.label for one in slices if one.label == "MCI"] == ["MCI"] * 2  # of one patient, in the test part
    write = of.zipped(of.LAYOUTS[layout]) if zipped else of.LAYOUTS[layout]
    path = write(slices, tmp_path / "a")
    whole, part = load_parts(path)
    assert part is not None
    samples = load_samples(path, training_part=True)
    rows = np.flatnonzero(part == "train")
    assert list(samples.names) == [whole.names[row] for row in rows]
    assert [samples.read(at) for at in range(len(rows))] == [whole.read(row) for row in rows]
    assert samples.classes == whole.classes  # with MCI, which only the test part has
    assert set(samples.labels.tolist()) == {0, 2}
    assert any(f"{len(part) - len(rows)} " in str(one) and "test" in str(one) for one in samples.skipped)


def test_a_folder_without_labels_is_none_of_the_layouts(tmp_path: Path) -> None:
    assert not has_no_labels(of.parquet(cohort(2), tmp_path / "a").parent)
    assert not has_no_labels(of.saved(cohort(2), tmp_path / "b"))
    assert not has_no_labels(of.class_folders(cohort(2), tmp_path / "c"))
    assert not has_no_labels(of.csv(cohort(2), tmp_path / "d").parent)
    flat = tmp_path / "e"
    flat.mkdir()
    (flat / "1.png").write_bytes(PNG)
    (flat / "ages.csv").write_text("name,age\n1.png,70\n")
    (flat / ".hidden").mkdir()
    assert has_no_labels(flat)


def test_saved_datasets_that_are_not_whole(tmp_path: Path) -> None:
    root = of.saved(cohort(2), tmp_path / "a")
    state = json.loads((root / "state.json").read_text())
    for name, message in (
        ("../secret.arrow", "lists the file '../secret.arrow', expected a file name without folders"),
        ("gone.arrow", r"gone\.arrow cannot be read as an Arrow stream"),
    ):
        (root / "state.json").write_text(json.dumps({**state, "_data_files": [{"filename": name}]}))
        with pytest.raises(DatasetError, match=message):
            load_samples(root)
    (root / "state.json").write_text(json.dumps({**state, "_data_files": state["_data_files"][:1]}))
    with pytest.raises(DatasetError, match=r"has 'data-00001-of-00002\.arrow', which state\.json does not list"):
        load_samples(root)
    (root / "state.json").write_text("{")
    with pytest.raises(DatasetError, match=r"state\.json cannot be read"):
        load_samples(root)


def test_indices_select_and_order_the_rows(tmp_path: Path) -> None:
    import pyarrow as pa

    slices = cohort(2)
    root = of.saved_with_indices(slices, tmp_path / "a")
    assert load_samples(root).paths == [one.name for one in slices]
    last = len(slices) - 1
    chosen = pa.table({"indices": pa.array([last, last - 9], pa.uint64())})  # of rows that are stored in reverse order
    with pa.OSFile(str(root / "indices.arrow"), "wb") as sink, pa.ipc.new_stream(sink, chosen.schema) as out:
        out.write_table(chosen)
    samples = load_samples(root)
    assert samples.paths == [slices[0].name, slices[9].name]
    assert samples.labels.tolist() == [0, 1]


def test_indices_beyond_the_data(tmp_path: Path) -> None:
    root = of.saved_with_indices(cohort(2), tmp_path / "a")
    whole = sorted(root.glob("data-*"))
    state = json.loads((root / "state.json").read_text())
    whole[1].unlink()
    (root / "state.json").write_text(json.dumps({**state, "_data_files": state["_data_files"][:1]}))
    with pytest.raises(DatasetError, match=r"indices\.arrow refers to rows beyond the 3 of the data"):
        load_samples(root)


def tfrecord() -> bytes:
    """The header that TensorFlow writes for a record of 16 bytes: its masked CRC-32C is a known value."""
    return struct.pack("<Q", 0) + struct.pack("<I", 0x07980329) + bytes(8)


KINDS = {
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "an HDF5 file"),
    "a.npy": (b"\x93NUMPY\1\0" + bytes(64), "a NumPy array"),
    "a.nii": (bytes(344) + b"n+1\0", "a NIfTI volume;"),
    "a.nii.gz": (gzip.compress(bytes(344) + b"n+1\0"), "a NIfTI volume, compressed with gzip"),
    "a.tar.gz": (gzip.compress(b"x" * 600), r"a gzip archive, such as \.tar\.gz"),
    "a.tfrecord": (tfrecord(), "a TFRecord file"),
    "a.jsonl": (b'{"path": "a.png", "label": 1}\n', "JSON or JSON lines"),
    "a.mat": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90), "a MATLAB file"),
    "a.rar": (b"Rar!\x1a\x07\x01\0", "a RAR archive"),
    "a.db": (b"SQLite format 3\0" + bytes(84), "an SQLite database"),
    "a.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(64), "an Excel workbook"),
    "a.pkl": (b"\x80\x04\x95", "a Python pickle, which can run code"),
    "a.png": (PNG, "one image"),
    "a.txt": (b"path label\n", r"text; .* name it \.csv or \.tsv"),
    "a.parquet": (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
    "a.csv.gz": (gzip.compress(b"path,label\n"), "a gzip archive"),
    "a.bin": (b"", "empty"),
    "a.raw": (bytes(64), "a file of unknown type"),
    "a.dat": (bytes(range(256)), "a file of unknown type"),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_is_not_taken_is_named(tmp_path: Path, name: str) -> None:
    content, message = KINDS[name]
    (tmp_path / name).write_bytes(content)
    (tmp_path / "outer" / "scans").mkdir(parents=True)
    (tmp_path / "outer" / "scans" / name).write_bytes(content)
    unclear = message.startswith(("one image", "text", "JSON", "empty", "a file of unknown", "a Git LFS"))
    for path in (tmp_path / name, tmp_path / "outer" / "scans", *([] if unclear else [tmp_path / "outer"])):
        with pytest.raises(DatasetError, match=message) as caught:
            load_samples(path)
        assert "expected a folder of class folders" in str(caught.value)


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.zip")
    with pytest.raises(DatasetError, match="cannot be read: it is a FIFO"):
        load_samples(tmp_path / "a.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_would_unpack_without_limit(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w", method) as archive:
        archive.writestr("CN/a.png", bytes(1 << 20))
    with pytest.raises(DatasetError, match=r"is packed by another method than deflate \('CN/a\.png'\)"):
        load_samples(tmp_path / "data.zip")
