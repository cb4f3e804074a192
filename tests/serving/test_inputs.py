"""What is listed: the images that `predict` would find, in a fixed order, each once; and what cannot be is refused."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stageproof.runtime import InputError
from stageproof.runtime.images.folders import images_in
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.serving.archive.inputs.entry import Entry, Skipped
from stageproof.serving.archive.inputs.listing import check, listed
from stageproof.serving.archive.inputs.reading import Reader, UnreadableError
from stageproof.serving.archive.output import listing_file

PNG = b"\x89PNG\r\n\x1a\n"


def listing(*paths: object, outside: str = "/nowhere") -> tuple[list[Entry], dict[str, int]]:
    skipped = Skipped()
    return list(listed([str(path) for path in paths], skipped, outside=outside)), dict(skipped.kinds)


def contents(entries: list[Entry]) -> list[bytes]:
    with Reader(str(Path.cwd())) as reader:
        return [reader.read(one) for one in entries]


@pytest.fixture
def tree(tmp_path) -> Path:
    """Folders with images, other files, hidden ones, links to files and folders, and a loop."""
    root = tmp_path / "tree"
    for name in ("b/2.png", "b/1.PNG", "a/x.dcm", "a/unnamed", "a.txt", ".git/config.png", "b/Thumbs.db", "c/k.jpg"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PNG + name.encode() if name != "a.txt" else b"hello")
    (root / "b" / "loop").symlink_to(root)
    (root / "d").symlink_to(root / "b")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.png").write_bytes(PNG)
    (root / "e").symlink_to(tmp_path / "outside")
    (root / "c" / "link.png").symlink_to(root / "b" / "2.png")
    (root / "c" / "broken.png").symlink_to(root / "nothing")
    os.mkfifo(root / "c" / "pipe.png")
    return root


def test_a_folder_has_the_images_that_predict_finds(tree):
    entries, skipped = listing(tree)
    expected = images_in(tree)
    assert sorted(one.path for one in entries) == sorted(map(str, expected.images))
    assert [one.path.removeprefix(str(tree)) for one in entries] == [
        *("/a/unnamed", "/a/x.dcm", "/b/1.PNG", "/b/2.png", "/c/k.jpg", "/c/link.png", "/e/o.png"),
    ]
    assert skipped.pop("devices, sockets and pipes") == 1  # which predict does not count
    assert skipped == dict(expected.skipped)
    assert entries == listing(tree)[0]


def test_the_output_is_not_an_input(tree):
    assert [one.path for one in listing(tree, outside=str(tree / "b"))[0]] == [
        str(tree / name) for name in ("a/unnamed", "a/x.dcm", "c/k.jpg", "c/link.png", "e/o.png")
    ]


def test_tar_and_zip_members_are_read_where_they_are(tmp_path):
    bodies = {"p1/a.png": PNG + b"1" * 700, "p1/b.png": PNG + b"2", "notes.txt": b"no", "__MACOSX/._a.png": b"x"}
    with tarfile.open(tmp_path / "one.tar", "w") as tar, zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        for name, body in bodies.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
            archive.writestr(name, body, zipfile.ZIP_DEFLATED)
    entries, skipped = listing(tmp_path)
    assert [one.name.removeprefix(str(tmp_path)) for one in entries] == [
        *("/one.tar!p1/a.png", "/one.tar!p1/b.png", "/two.zip!p1/a.png", "/two.zip!p1/b.png")
    ]
    assert contents(entries[::-1]) == [bodies[one.member] for one in entries[::-1]]
    assert skipped == {"text": 2, "hidden or left behind by a system": 2}
    assert [one.member for one in listing(f"file://{tmp_path}/one.tar")[0]] == ["p1/a.png", "p1/b.png"]


def test_a_damaged_container_is_refused_when_listed_and_a_row_when_read(tmp_path):
    with tarfile.open(tmp_path / "one.tar", "w") as tar:
        for name in "ab":
            info = tarfile.TarInfo(f"{name}.png")
            info.size = 3000
            tar.addfile(info, io.BytesIO(PNG + bytes(2992)))
    entries, _ = listing(tmp_path / "one.tar")
    whole = (tmp_path / "one.tar").read_bytes()
    (tmp_path / "one.tar").write_bytes(whole[:5000])
    assert contents(entries[:1])[0].startswith(PNG)
    with pytest.raises(UnreadableError, match="the tar file ends within this member"):
        contents(entries)
    with pytest.raises(InputError, match=r"one\.tar cannot be listed: unexpected end of data"):
        listing(tmp_path / "one.tar")
    (tmp_path / "two.zip").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(InputError, match=r"two\.zip cannot be listed: File is not a zip file"):
        listing(tmp_path / "two.zip")
    (tmp_path / "three.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match="is a compressed tar file"):
        listing(tmp_path / "three.tar.gz")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_list_names_paths_beside_it_and_patients(kind, tmp_path):
    rows = {"Path": ["a.png", "sub/b.png", "gone.png"], "subject_id": ["7", "8", ""], "age": ["70", "71", "72"]}
    table = tmp_path / "lists" / f"list.{kind}"
    table.parent.mkdir()
    if kind == "csv":
        lines = [",".join(rows), *(",".join(one) for one in zip(*rows.values(), strict=True))]
        table.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    else:
        pq.write_table(pa.table({**rows, "subject_id": [7.0, 8.0, None]}), table)
    (table.parent / "a.png").write_bytes(PNG)
    entries, _ = listing(table)
    assert [(one.path, one.patient) for one in entries] == [
        (str(table.parent / "a.png"), "7"),
        (str(table.parent / "sub/b.png"), "8"),
        (str(table.parent / "gone.png"), None),
    ]
    with pytest.raises(UnreadableError, match="does not exist any more, or not on this machine"):
        contents(entries[2:])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,patient\na.png,1\n", "has the columns name, patient; expected exactly one of path, file"),
        ("path,file\na.png,b.png\n", "expected exactly one of"),
        ("path\n\n'',\n", "row 2 has 2 cells, expected 1"),
        ('path,patient\n"",3\n', "row 1 has no path"),
        ("", "has the columns ; expected"),
    ],
)
def test_a_list_that_is_none_is_refused(text, message, tmp_path):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        listing(tmp_path / "list.csv")


def test_a_table_of_images_is_refused(tmp_path):
    pq.write_table(pa.table({"image": [{"bytes": PNG}]}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="expected text: paths of image files"):
        listing(tmp_path / "train.parquet")


def test_patterns_and_urls(tree):
    by_pattern, _ = listing(f"{tree}/b/*.[pP][nN][gG]")
    assert [Path(one.path).name for one in by_pattern] == ["1.PNG", "2.png"]
    by_url, skipped = listing(f"file://{tree}/b", f"file://{tree}/c/k.jpg")
    assert [one.path.removeprefix(f"file://{tree}") for one in by_url] == ["/b/1.PNG", "/b/2.png", "/c/k.jpg"]
    assert contents(by_url) == [PNG + b"b/1.PNG", PNG + b"b/2.png", PNG + b"c/k.jpg"]
    assert skipped == {"hidden or left behind by a system": 1}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nothing", "there is no file or folder 'nothing'"),
        ("no*.png", r"no file matches the pattern 'no\*.png'"),
    ],
)
def test_a_path_that_does_not_exist_is_refused_at_once(path, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        check([path])
    with pytest.raises(InputError, match="no input was given"):
        check([])


def test_a_folder_without_an_image_and_a_url_of_nothing_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(InputError, match=r"has no image \(1 text\)"):
        listing(tmp_path)
    with pytest.raises(InputError, match=r"cannot be listed|has no file"):
        listing(f"file://{tmp_path}/nothing")
    with pytest.raises(InputError, match="cannot be opened"):
        listing("nonsense://x")


def written(path: Path, entries: list[Entry], **changes):
    given = {"secret": b"k" * 32, "shard_images": 3, "shard_bytes": 1000, "about": {"folder": "/", "inputs": []}}
    return listing_file.write(path, entries, **{**given, **changes})


def test_a_shard_ends_by_number_or_bytes(tmp_path):
    sizes = [400, 400, 400, 5000, 1, 1, 1, 1]
    entries = [Entry(f"/{at}", size=size) for at, size in enumerate(sizes)]
    found = written(tmp_path / "list", entries)
    assert (found.inputs, found.shards, found.bytes) == (8, 5, sum(sizes))
    opened = listing_file.ListingFile.open(tmp_path / "list", sha256_file(tmp_path / "list"))
    shards = [[one.path for one in opened.entries(shard)] for shard in range(5)]
    assert shards == [["/0", "/1"], ["/2"], ["/3"], ["/4", "/5", "/6"], ["/7"]]
    assert [opened.first(shard) for shard in range(5)] == [0, 2, 3, 4, 7]


def test_names_that_are_no_text_are_kept(tmp_path):
    name = os.fsdecode(b"/scan-\xff\x01.png")
    written(tmp_path / "list", [Entry(name, member=name)])
    (entry,) = listing_file._entries(pq.read_table(tmp_path / "list"))
    assert (entry.path, entry.member) == (name, name)


@pytest.mark.parametrize("twice", ["/a/../b", "/b", "/./b"])
def test_an_input_that_is_listed_twice_is_refused(twice, tmp_path):
    with pytest.raises(InputError, match="is listed more than once"):
        written(tmp_path / "list", [Entry("/b"), Entry("/c"), Entry(twice)])
    assert list(tmp_path.iterdir()) == []
    written(tmp_path / "list", [Entry("/b", member="x"), Entry("/b", member="y"), Entry("/b/c")])


def test_two_members_of_one_name_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for content in (PNG, PNG + b"2"):
            member = tarfile.TarInfo("x.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    entries, _ = listing(tmp_path / "a.tar")
    with pytest.raises(InputError, match=r"a\.tar!x\.png is listed more than once; expected every input once"):
        written(tmp_path / "list", entries)


def test_a_zip_file_with_a_name_that_is_not_utf8(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("ä.png", PNG)
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace("ä".encode(), b"\xe4\xff"))
    with pytest.raises(InputError, match=r"a\.zip cannot be listed: .*Copy it again"):
        listing(tmp_path / "a.zip")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.tsv", "path\tpatient\n0.png\t7\nb/1.png\t8\n"),
        ("list.csv", "\ufeffpath;patient\r\n0.png;7\r\nb/1.png;8\r\n"),
        ("list.csv", "path,patient\n0.png ,7 \nb\\1.png, 8\n"),
    ],
)
def test_lists_as_spreadsheets_and_windows_write_them(tmp_path, name, text):
    (tmp_path / "b").mkdir()
    for file in ("0.png", "b/1.png"):
        (tmp_path / file).write_bytes(PNG)
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    entries, _ = listing(tmp_path / name)
    assert [(one.path.removeprefix(f"{tmp_path}/"), one.patient) for one in entries] == [
        ("0.png", "7"),
        ("b/1.png", "8"),
    ]


def test_the_digest_is_keyed_and_covers_names_patients_and_shards(tmp_path):
    entries = [Entry("/a"), Entry("/b", patient="7"), Entry("/c"), Entry("/d")]
    variants = [
        written(tmp_path / "1", entries),
        written(tmp_path / "2", entries, secret=b"x" * 32),
        written(tmp_path / "3", entries, shard_images=2),
        written(tmp_path / "4", [Entry("/a"), Entry("/b", patient="8"), *entries[2:]]),
        written(tmp_path / "5", [Entry("/A"), *entries[1:]]),
    ]
    assert len({one.digest for one in variants}) == 5
    assert written(tmp_path / "6", entries).digest == variants[0].digest


def test_a_copied_archive_has_the_same_listing(tree, tmp_path):
    """Times of files are no part of what the listing is."""
    entries, _ = listing(tree / "b")
    (tmp_path / "list").unlink(missing_ok=True)
    shutil.copy(tree / "b" / "2.png", tmp_path / "2.png")
    os.utime(tree / "b" / "2.png", (1, 1))
    later, _ = listing(tree / "b")
    assert later != entries
    assert written(tmp_path / "1", later).digest == written(tmp_path / "2", entries).digest


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_members_that_would_unpack_without_limit(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", PNG + bytes(1 << 20))
    with pytest.raises(InputError, match=r"is packed by another method than deflate \('a\.png'\)"):
        listing(tmp_path / "a.zip")
