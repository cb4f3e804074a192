"""--output: foreign files are never touched, half a line of one's own is cut exactly, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.runtime.cli.csv_file import CsvFile, read_existing
from stageproof.runtime.cli.output import header, row
from stageproof.runtime.errors import InputError
from stageproof.runtime.labels import LABELS
from tests.runtime.test_audit import PREDICTION

ROOT = Path(__file__).resolve().parents[2]
MODEL = PREDICTION.model_digest
NAMES = ["a.png", "b, c.png", 'd "e".png', "f\ng.png", "ü.png", "r\r.png"]
ROWS = [row(name, PREDICTION, LABELS) for name in NAMES]


def resumed(path: Path, names: list[str] = NAMES) -> CsvFile:
    return CsvFile(path, read_existing(path, resume=True), model_digest=MODEL, classes=LABELS, names=names)


def write(path: Path, names: list[str] = NAMES) -> None:
    file = resumed(path, names)
    for name in names:
        if name not in file.done:
            file.write(name, PREDICTION)
    file.close()


@pytest.mark.parametrize("names", range(1, len(NAMES)))
def test_half_a_line_is_cut_exactly_wherever_it_ends(tmp_path: Path, names: int) -> None:
    """Every byte of the row that was being written, also inside a quoted name that holds a line's end."""
    whole, line = (header(LABELS) + "".join(ROWS[:names])).encode(), ROWS[names].encode()
    path = tmp_path / "out.csv"
    for end in [*range(1, 40), len(line) - 1]:
        path.write_bytes(whole + line[:end])
        write(path)
        assert path.read_bytes() == (header(LABELS) + "".join(ROWS)).encode()
        assert Path(f"{path}.cut").read_bytes() == line[:end] + b"\n"
        Path(f"{path}.cut").unlink()


def test_a_line_end_within_quotes_ends_no_line(tmp_path: Path) -> None:
    """As version 0.1 wrote a name that holds one."""
    old = '"f\ng.png"' + ROWS[3].removeprefix(r"f\ng.png")
    assert old.endswith(ROWS[0].removeprefix("a.png"))
    path = tmp_path / "out.csv"
    path.write_text(header(LABELS) + ROWS[0] + old, encoding="utf-8", newline="")
    assert read_existing(path, resume=True).models == {"a.png": MODEL, "f\ng.png": MODEL}
    path.write_text(header(LABELS) + ROWS[0] + old[:6], encoding="utf-8", newline="")
    cut = read_existing(path, resume=True)
    assert (cut.models, cut.partial) == ({"a.png": MODEL}, old[:6].encode())


FOREIGN = {
    "a line without an end": b"my notes",
    "a table": b"file,status\na.png,ok\n",
    "columns in another order": header(LABELS).replace("file,status", "status,file").encode(),
    "the beginning of the header": header(LABELS)[:20].encode(),
    "the header without an end": header(LABELS).encode()[:-1],
    "lines of Windows": header(LABELS).replace("\n", "\r\n").encode(),
    "a mark of byte order": b"\xef\xbb\xbf" + header(LABELS).encode(),
    "binary": bytes(range(256)) * 4,
    "binary after the header": header(LABELS).encode() + bytes(range(256)) + b"\n",
    "a short row": header(LABELS).encode() + b"a.png,ok\n",
    "a long row": header(LABELS).encode() + ROWS[0].encode()[:-1] + b",more\n",
    "another status": header(LABELS).encode() + ROWS[0].replace("rejected", "fine").encode(),
    "another model": header(LABELS).encode() + ROWS[0].replace(MODEL, "0" * 64).encode(),
    "a note at the end": (header(LABELS) + ROWS[0]).encode() + b"checked by me",
    "a row of another image at the end": (header(LABELS) + ROWS[0]).encode() + b"other.png,ok,",
    "another status at the end": (header(LABELS) + ROWS[0]).encode() + b'"b, c.png",fine,',
    "an open quote": (header(LABELS) + ROWS[0]).encode() + b'"b, c.png,ok\nx,y\n',
}


@pytest.mark.parametrize("kind", list(FOREIGN))
@pytest.mark.parametrize("resume", [True, False])
def test_a_foreign_file_is_refused_by_name_and_not_touched(tmp_path: Path, kind: str, resume: bool) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(FOREIGN[kind])
    status = path.stat()
    with pytest.raises(InputError, match=r"out\.csv"):
        CsvFile(path, read_existing(path, resume=resume), model_digest=MODEL, classes=LABELS, names=NAMES)
    assert path.read_bytes() == FOREIGN[kind]
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("path", ["/dev/null", "/dev/full", ".", "none/out.csv"])
def test_what_is_no_file_is_refused(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"is not a regular file|there is no folder none"):
        read_existing(Path(path), resume=True)


def test_an_empty_file_and_a_new_one_are_begun(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    write(tmp_path / "empty.csv")
    write(tmp_path / "new.csv")
    assert (tmp_path / "empty.csv").read_bytes() == (tmp_path / "new.csv").read_bytes() != b""


def test_two_processes_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    first = resumed(path)
    with pytest.raises(InputError, match="is being written by another process"):
        resumed(path)
    found = read_existing(path, resume=True)
    first.write("a.png", PREDICTION)
    first.close()
    with pytest.raises(InputError, match="was changed by another process"):
        CsvFile(path, found, model_digest=MODEL, classes=LABELS, names=NAMES)
    assert path.read_text(encoding="utf-8") == header(LABELS) + ROWS[0]


FULL = """
import resource, sys
from pathlib import Path
from runtime.errors import InputError
from tests.runtime.test_csv_file import PREDICTION, resumed
path = Path(sys.argv[1])
file = resumed(path)
file.write("a.png", PREDICTION)
size = path.stat().st_size + 50
resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
try:
    file.write("b, c.png", PREDICTION)
except InputError as error:
    print(error)
"""


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "my out.csv"
    command = [sys.executable, "-c", FULL, str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert "cannot be written: File too large. Continue later with --output '" in done.stdout
    assert path.read_text(encoding="utf-8") == header(LABELS) + ROWS[0]
