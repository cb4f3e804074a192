"""Headers that claim too much are refused before a decoder acts upon them; what is within the limits stays within."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import ImageError
from stageproof.runtime.images.reader import read, read_all
from tests.runtime import bombs

ROOT = Path(__file__).resolve().parents[2]

MEASURED = """
import resource, sys, warnings
warnings.simplefilter("ignore")
from runtime import ImageError
from runtime.images.reader import read_all
from tests.runtime import bombs

def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss, which starts with what the process that forked this one had.
    peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
    return usage.ru_utime + usage.ru_stime, peak / 1024

read_all(bombs.dicom(bombs.RLE, bombs.item(b"") + bombs.item(bombs.rle([b"\\xff\\0" * 8])), 4, 4))
files = {**bombs.refused(), **(bombs.costly() if sys.argv[1] == "costly" else {})}
if sys.argv[1] == "costly":
    files = bombs.costly()
_, start = used()
for name, data in files.items():
    before, _ = used()
    try:
        read_all(data)
        said = ""
    except ImageError as error:
        said = str(error)
    after, most = used()
    print(f"{name}\\t{after - before:.2f}\\t{most - start:.0f}\\t{said}")
"""


def measured(which: str) -> list[tuple[str, float, float, str]]:
    """Name, seconds of CPU, MiB above the start, and the error of each file, read in a process of its own."""
    pytest.importorskip("pydicom", reason="the extra dicom")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, which], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    return [(name, float(cpu), float(memory), said) for name, cpu, memory, said in rows]


def test_refused_by_the_header_alone() -> None:
    """Also without a process of its own: no decoder is reached, so nothing is allocated and no time passes."""
    rows = measured("refused")
    assert len(rows) > 25
    for name, cpu, memory, said in rows:
        assert said, name
        inflates = "deflated" in name  # up to its own limit
        assert cpu < 2, (name, cpu, said)
        assert inflates or memory < 120, (name, memory, said)
    assert rows[-1][2] < 400


def test_what_programs_write_passes() -> None:
    """As far as Pillow's own options go."""
    pixels = bombs.grey(512)
    for options in (
        {"quality_layers": [40, 20, 10, 0], "precinct_size": (64, 64), "num_resolutions": 6, "irreversible": False},
        {"tile_size": (32, 32), "codeblock_size": (16, 16), "num_resolutions": 2},
        {"no_jp2": True},
    ):
        assert np.array_equal(np.asarray(read(bombs.save(pixels, "JPEG2000", **options)).image), pixels)
    for levels in (75, 100):
        read(bombs.save(pixels, "JPEG", progressive=True, quality=levels))
    packed = b"".join(b"\x7f" + part.tobytes() for part in pixels.reshape(-1, 128))
    pytest.importorskip("pydicom", reason="the extra dicom")
    image = read(bombs.dicom(bombs.RLE, bombs.item(b"") + bombs.item(bombs.rle([packed])), 512, 512)).image
    assert image.size == (512, 512)


def test_plain_pnm_is_read_as_its_binary_form() -> None:
    values = np.random.default_rng(3).integers(0, 101, (5, 7))
    body = b"\n".join(b" ".join(b"%d" % value for value in row) for row in values)
    image = np.asarray(read(b"P2 # a comment\n7 5 100\n" + body + b"\n").image)
    assert np.array_equal(image, np.rint(values / 100 * 255))
    bits = b"P1\n7 5\n" + b"\n".join(b"".join(b"%d" % (value % 2) for value in row) for row in values)
    assert np.array_equal(np.asarray(read(bits).image), np.where(values % 2, 0, 255))
    for damaged in (body[:-3], body.replace(b" ", b" x", 1), body.replace(b" ", b" 101 ", 1), b"1" * 400):
        with pytest.raises(ImageError, match="plain PGM or PPM that is truncated or damaged"):
            read(b"P2 7 5 100\n" + damaged)


def test_a_deflated_dicom_is_read() -> None:
    pytest.importorskip("pydicom", reason="the extra dicom")
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    data = bombs.dicom(bombs.DEFLATED, pixels.tobytes(), 8, 8, encapsulated=False)
    (picture,) = read_all(data)
    assert picture.image.size == (8, 8)
    with pytest.raises(ImageError, match="could not be decoded as DICOM"):
        read(data[:-5])
