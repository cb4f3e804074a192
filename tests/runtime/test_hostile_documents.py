"""Guards and manifests of strangers: refused before a parser takes their word."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stageproof.runtime import BundleError, Predictor
from stageproof.runtime.bundle.manifest import LARGEST, read_manifest
from stageproof.runtime.guard.ood_guard import Guard
from stageproof.runtime.serialization.digests import UNSEALED, seal
from stageproof.runtime.serialization.json_fields import DEEPEST, parse
from tests.runtime.hostile import CPU_SECONDS, MIB, OLD, copied, exchanged, load_apart, rewritten


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copied(tmp_path / "bundle")


# The guard.


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def parts(**changed: object) -> bytes:
    with np.load(OLD / "guard.npz") as file:
        about = json.loads(str(file["about"]))
        arrays = {name: file[name] for name in ("mean", "components", "scales")}
    thresholds = {**about["thresholds"], **changed.pop("thresholds", {})}  # type: ignore[dict-item]
    text = json.dumps({**about, "thresholds": thresholds, **changed.pop("more", {})})  # type: ignore[dict-item]
    return npz(**{"about": np.array(text), **arrays, **changed})


def object_array() -> bytes:
    class Runs:
        def __reduce__(self):
            return print, ("it ran",)

    return parts(mean=np.array([Runs()], dtype=object))


def declared(name: str, shape: str) -> bytes:
    """The guard, one of whose arrays says it has another shape."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(OLD / "guard.npz") as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry == f"{name}.npy":
                header = re.sub(rb"'shape': \([^)]*\)", f"'shape': {shape}".encode(), content[10:128])[:117]
                content = content[:10] + header.ljust(117) + b"\n" + content[128:]
            new.writestr(entry, content)
    return buffer.getvalue()


GUARDS: dict[str, tuple[Callable[[], bytes], str]] = {
    "millions of zeros": (lambda: npz(mean=np.zeros(8_000_000, np.float32), about="", components=0, scales=0), "."),
    "too large an array": (lambda: parts(components=np.zeros((500, 1024), np.float32)), "more than"),
    "python objects": (object_array, "expected float32"),
    "another type": (lambda: parts(mean=np.zeros(1024, np.float64)), "more than|expected float32"),
    "another shape": (lambda: parts(mean=np.zeros(1000, np.float32)), "arrays of shapes"),
    "a declared shape": (lambda: declared("mean", "(1099511627776,)"), "declares 1099511627776 values"),
    "more arrays": (lambda: parts(more_of_it=np.zeros(1)), "expected about, mean"),
    "an infinite threshold": (lambda: parts(thresholds={"blank": float("inf")}), "Infinity"),
    "no number": (lambda: parts(thresholds={"blank": float("nan")}), "NaN"),
    "beyond its score": (lambda: parts(thresholds={"blank": 1e300}), r"threshold 1e\+300 of blank, expected a number"),
    "a text": (lambda: parts(thresholds={"smooth": "1"}), "threshold '1' of smooth"),
    "one more threshold": (lambda: parts(thresholds={"x": 1.0}), "thresholds of"),
    "infinite values": (lambda: parts(mean=np.full(1024, np.inf, np.float32)), "not finite"),
    "no scale": (lambda: parts(scales=np.zeros(2, np.float32)), "arrays of shapes|not positive"),
    "no archive": (lambda: b"PK\x03\x04" + bytes(100), "zip"),
    "empty": (lambda: b"", "zip"),
    "an array alone": (lambda: b"\x93NUMPY\x01\x00" + bytes(100), "zip"),
}


@pytest.mark.parametrize(("made", "match"), GUARDS.values(), ids=GUARDS)
def test_a_hostile_guard_is_refused_by_name(bundle: Path, made: Callable[[], bytes], match: str) -> None:
    content = made()
    exchanged(bundle, "guard.npz", content)
    with pytest.raises(
        BundleError, match=rf"(?s)guard\.npz (is not a guard file of this runtime|has .* bytes).*{match}"
    ):
        Predictor(bundle, backend="onnx")
    with pytest.raises(BundleError):
        Guard.read(bundle / "guard.npz")


def test_a_guard_that_swells_costs_little(bundle: Path) -> None:
    """3 MB to 3.2 GB in the review; 160 MB here, in a file of 160 kB."""
    exchanged(bundle, "guard.npz", npz(mean=np.zeros(40 << 20, np.float32), about="", components=0, scales=0))
    assert (bundle / "guard.npz").stat().st_size < 1 << 20
    found = load_apart(bundle, "onnxruntime", backend="onnx")
    assert found["said"].startswith("BundleError: ")
    assert found["mib"] < 64


def test_the_guard_of_0_1_is_read_as_it_was() -> None:
    guard = Guard.read(OLD / "guard.npz")
    with np.load(OLD / "guard.npz") as file:
        assert np.array_equal(guard.mean, file["mean"])
        assert np.array_equal(guard.components, file["components"])


# The manifest.


def manifest_text(change: Callable[[str], str]) -> str:
    data = json.loads((OLD / "manifest.json").read_text(encoding="utf-8"))
    return seal(change(json.dumps({**data, "sha256": UNSEALED})))


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


MANIFESTS = {
    "a key twice": (
        lambda text: text.replace('"schema": 1', '"schema": 1, "schema": 1', 1),
        "has the key 'schema' twice",
    ),
    "a million keys, one twice": (
        lambda text: text.replace(
            '"provenance": {', '"provenance": {' + "".join(f'"{n}":0,' for n in range(200_000)) + '"7":0,', 1
        ),
        "has the key '7' twice",
    ),
    "deep": (
        lambda text: text.replace('"provenance": {', f'"provenance": {{"x": {nested(DEEPEST + 8)},', 1),
        "nested more than",
    ),
    "deeper": (
        lambda text: text.replace('"provenance": {', f'"provenance": {{"x": {nested(100_000)},', 1),
        "is not JSON",
    ),
    "a huge integer": (
        lambda text: text.replace('"provenance": {', '"provenance": {"x": 1' + "0" * 4000 + ",", 1),
        "integer of",
    ),
    "an integer beyond Python": (
        lambda text: text.replace('"provenance": {', '"provenance": {"x": 1' + "0" * 9000 + ",", 1),
        "is not JSON",
    ),
    "an escape": (
        lambda text: text.replace('"provenance": {', '"provenance": {"x": "\\u001b[2J",', 1),
        "without control characters",
    ),
    "an escape in a key": (
        lambda text: text.replace('"provenance": {', '"provenance": {"\\u202e": 1,', 1),
        "without control characters",
    ),
    "an escape in a report": (
        lambda text: text.replace('"parity": {', '"parity": {"x": ["\\u001b"],', 1),
        "without control characters",
    ),
    "Infinity": (lambda text: re.sub(r'"temperature": [\d.]+', '"temperature": Infinity', text, count=1), "Infinity"),
    "1e999": (lambda text: re.sub(r'"temperature": [\d.]+', '"temperature": 1e999', text, count=1), "float64"),
}


@pytest.mark.parametrize(("change", "match"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_hostile_manifest_is_refused_by_name(bundle: Path, change: Callable[[str], str], match: str) -> None:
    (bundle / "manifest.json").write_text(manifest_text(change), encoding="utf-8")
    with pytest.raises(BundleError, match=match) as refused:
        Predictor(bundle)
    assert "manifest.json" in str(refused.value)
    assert len(str(refused.value)) < 2000


def test_a_key_with_an_escape_does_not_reach_the_terminal(bundle: Path) -> None:
    with pytest.raises(BundleError) as refused:
        parse('{"\\u001b[2J": 1, "\\u001b[2J": 1}', "manifest.json")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("what", ["/dev/zero", "FIFO", "socket", "folder", "too large", "sparse", "a link round"])
def test_what_is_no_file_is_no_manifest(bundle: Path, what: str) -> None:
    path = bundle / "manifest.json"
    path.unlink()
    if what == "/dev/zero":
        path.symlink_to("/dev/zero")
    elif what == "FIFO":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "a link round":
        path.symlink_to(path.name)
    elif what == "socket":
        import socket

        here = Path.cwd()
        os.chdir(bundle)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
        os.chdir(here)
    else:
        with path.open("wb") as file:
            file.truncate(LARGEST + 1 if what == "too large" else 1 << 40)
    with pytest.raises(BundleError, match=r"manifest\.json (is not a regular file|cannot be read|has \d+ bytes)"):
        Predictor(bundle)
    with pytest.raises(BundleError):
        read_manifest(bundle)


@pytest.mark.parametrize("name", ["guard.npz", "model.onnx", "golden/00.png", "model.bin"])
def test_a_device_in_place_of_any_file(bundle: Path, name: str) -> None:
    for make in (lambda path: path.symlink_to("/dev/zero"), os.mkfifo):
        (bundle / name).unlink()
        make(bundle / name)
        with pytest.raises(BundleError, match=name.rpartition("/")[2]):
            Predictor(bundle)


@pytest.mark.slow
def test_a_manifest_of_the_largest_size_costs_little(bundle: Path) -> None:
    """Lists within lists take the most memory of all JSON."""

    def widest(data: dict) -> None:
        data["provenance"]["x"] = [[] for _ in range((LARGEST - 60_000) // 4)]

    rewritten(bundle, widest)
    found = load_apart(bundle, "onnxruntime", backend="onnx")
    assert found["mib"] < MIB
    assert found["cpu_seconds"] < CPU_SECONDS
