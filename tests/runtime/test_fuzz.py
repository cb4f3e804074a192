"""Damaged files of every format end in a prediction or a typed error, soon, and in bounded memory; never a crash.

The mutations run in a process of its own, whose address space is limited: a decoder that allocates what a header claims
fails there, and a crash is seen as one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from stageproof.runtime.decoding.pool import supported

ROOT = Path(__file__).resolve().parents[2]

# Prints one JSON line. Everything is derived from the number of the mutation, so a finding can be repeated by it.
FUZZ = """
import io, json, random, resource, signal, sys, warnings
from pathlib import Path
import numpy as np
from PIL import Image
from runtime import ImageError
from runtime.inference.input_batches import fill, prepare
from runtime.preprocess import InputSpec

first, count = int(sys.argv[1]), int(sys.argv[2])
warnings.simplefilter("ignore")  # as in most hosts; with "error" every warning is one more refusal
rng = np.random.default_rng(5)
grey = np.add.outer(np.arange(96), np.arange(80)).astype(np.uint8) + rng.integers(0, 40, (96, 80), dtype=np.uint8)
colour = np.stack([grey, grey[::-1], grey // 2], -1)

def save(pixels, form, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()

seeds = [
    save(grey, "PNG"), save(colour, "PNG"), save(grey.astype(np.uint16) * 257, "PNG"),
    save(grey, "JPEG"), save(colour, "JPEG", progressive=True), save(grey, "BMP"), save(colour, "BMP"),
    save(grey, "TIFF"), save(colour, "TIFF", compression="tiff_lzw"), save(grey, "TIFF", compression="packbits"),
    save(grey, "TIFF", compression="tiff_adobe_deflate"), save(colour, "GIF"), save(grey, "JPEG2000"),
    save(colour, "WEBP"), save(grey, "PPM"),
]
try:
    import pydicom
except ImportError:
    pass
else:
    files = Path(pydicom.__file__).parent / "data" / "test_files"
    names = ["MR_small", "MR_small_RLE", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_implicit"]
    names += ["MR_small_bigendian", "SC_rgb_jpeg_dcmtk", "examples_palette", "CT_small", "rtdose_rle"]
    names += ["SC_rgb_jpeg_gdcm"]  # JPEG Lossless
    seeds += [(files / (name + ".dcm")).read_bytes() for name in names] * 2

GIANT = [b"\\xff\\xff\\xff\\xff", b"\\x7f\\xff\\xff\\xff", b"\\0\\xff\\xff\\0", b"\\xff\\xff\\0\\0"]

def mutate(number):
    pick = random.Random(number)
    data = bytearray(seeds[number % len(seeds)])
    head = min(len(data), pick.choice([64, 400, 4000, len(data)]))
    for _ in range(pick.choice([1, 1, 2, 5, 30])):
        kind, at = pick.randrange(6), pick.randrange(head)
        if kind == 0:
            data[at % len(data)] ^= 1 << pick.randrange(8)
        elif kind == 1:
            data[at % len(data)] = pick.choice([0, 1, 127, 128, 255])
        elif kind == 2:  # giant dimensions, lengths, offsets
            data[at : at + 4] = pick.choice(GIANT)
        elif kind == 3:
            del data[at : at + pick.randrange(1, 9)]
        elif kind == 4:
            data[at:at] = pick.randbytes(pick.randrange(1, 9))
        else:
            data[at:at] = data[at : at + pick.randrange(1, 200)]
        if not data:
            data = bytearray(b"\\0")
        head = max(1, min(head, len(data)))
    if pick.random() < 0.2:
        del data[pick.randrange(len(data)) :]
    return bytes(data)

spec = InputSpec.imagenet(64)
rows = np.empty((1, *spec.shape), np.float32)
for seed in seeds:
    fill(rows, prepare([seed], spec, None), spec)  # what is loaded lazily is loaded now
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + (1 << 30), pages + (1 << 30)))
wrong, answered = [], 0
def hangs(*_):
    raise TimeoutError("not done after 60 s of CPU")
signal.signal(signal.SIGVTALRM, hangs)
for number in range(first, first + count):
    data = mutate(number)
    signal.setitimer(signal.ITIMER_VIRTUAL, 60)
    try:
        answered += fill(rows, prepare([data], spec, None), spec)[0]
    except BaseException as error:
        wrong.append([number, type(error).__name__, str(error)[:200]])
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
print(json.dumps({"wrong": wrong, "answered": answered, "grown_mib": grown}))
"""


def fuzz(first: int, count: int) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(first), str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def check(result: dict, count: int) -> None:
    assert result["wrong"] == []
    assert result["grown_mib"] < 500
    assert 0.05 * count < result["answered"] < 0.95 * count  # neither so gentle nor so harsh that it tests nothing


def test_300_mutations() -> None:
    check(fuzz(0, 300), 300)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_10000_mutations() -> None:
    check(fuzz(1000, 10_000), 10_000)


def fuzz_in_decoders(first: int, count: int) -> dict:
    command = [sys.executable, "-m", "tests.runtime.fuzzing", str(first), str(count)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3500, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert done.stderr == ""
    assert "Zyxwvut" not in done.stdout
    return json.loads(done.stdout)


def check_in_decoders(result: dict, count: int) -> None:
    assert result["wrong"] == result["leaked"] == []
    assert result["neighbours"] == count // 25
    assert result["grown_mib"] < 200
    assert result["decoder_mib"] < 512
    assert 0.05 * count < result["answered"] < 0.95 * count


@pytest.mark.skipif(not supported(), reason="needs Linux")
def test_400_mutations_in_processes_with_limits() -> None:
    check_in_decoders(fuzz_in_decoders(0, 400), 400)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not supported(), reason="needs Linux")
def test_100000_mutations_in_processes_with_limits() -> None:
    """Of all formats, by header fields and at random, and of bombs. Figures: docs/SECURITY-DECODING.md."""
    check_in_decoders(fuzz_in_decoders(0, 100_000), 100_000)
