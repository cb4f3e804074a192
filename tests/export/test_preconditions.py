"""What an export refuses in its first second: before torch is imported, before anything is written."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from stageproof.export.options import Options
from stageproof.export.preconditions import check
from stageproof.runtime.errors import (
    BundleError,
    CheckpointError,
    DatasetError,
    DependencyError,
    InputError,
    StageproofError,
)
from stageproof.runtime.labels import LABELS
from stageproof.train.runs.record import write_record

ROOT = Path(__file__).parents[2]


def write_images(folder: Path, count: int, first: int = 0) -> Path:
    """Class folders with so many images, of whose grey levels 256 are different."""
    for index in range(first, first + count):
        path = folder / LABELS[index % 4] / f"s{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), index % 256).save(path)
    return folder


def make_run(folder: Path, data: Path | None, training: int, validation: int) -> Path:
    """A run whose record and split are as training writes them; its weights are nobody's."""
    from stageproof.train.data.sources.source import load_samples

    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(1000))
    rows = [(f"t{index}", "training") for index in range(training)]
    rows += [(f"v{index}", "validation") for index in range(validation)]
    digest = "0" * 64
    if data is not None:
        samples = load_samples(data)
        digest = samples.digest()
        held = set(samples.names[:validation])
        rows = [(name, "validation" if name in held else "training") for name in samples.names]
    lines = ["name,label,patient,side", *(f"{name},NonDemented,{name},{where}" for name, where in rows)]
    (folder / "split.csv").write_text("\n".join(lines) + "\n")
    record = {
        "created": "2026-01-01T00:00:00Z",
        "options": {"data": None if data is None else str(data), "seed": 0},
        "data": {"digest": digest, "source": str(data)},
        "input": {"height": 32, "width": 32},
        "split": {"by": "patient"},
    }
    write_record(record, folder)
    return folder


def data_of_its_own(folder: Path) -> Path:
    """101 images with the pixels of none that `write_images` writes."""
    for index in range(101):
        path = folder / LABELS[index % 4] / f"s{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("L", (8, 8), index)
        image.putpixel((0, 0), 255 - index)
        image.save(path)
    return folder


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "model.pth"
    path.write_bytes(bytes(1000))
    return path


@pytest.fixture
def options(checkpoint, tmp_path) -> Options:
    return Options(source=checkpoint, out=tmp_path / "out" / "bundle")


def refused(options: Options, kind: type[StageproofError], match: str) -> None:
    with pytest.raises(kind, match=match):
        check(options)
    assert not options.out.parent.exists(), "nothing was written"


def test_what_can_work_passes_and_is_named(options, said):
    settled, wanted = check(replace(options, precision=("fp32", "fp16")))
    assert wanted == {"onnx": ["fp32", "fp16"]}
    assert settled.source == options.source.resolve()
    assert said == [f"checkpoint {options.source}", f"bundle {options.out}"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"to": ("onxx",)}, "Did you mean 'onnx'"),
        ({"precision": ("int4",)}, "Did you mean 'int8'"),
        ({"to": ("torchscript",), "precision": ("int8",)}, "torchscript does not support int8"),
        ({"with_softmax": True}, "--with-preprocessing"),
        ({"parity_images": 0}, "--parity-images is 0, expected 14 or more"),
        ({"parity_images": 3}, "--parity-images is 3, expected 14 or more"),
        ({"threads": 0}, "--threads is 0"),
        ({"image_size": -1}, "--image-size is -1"),
        ({"tolerance": -0.1}, "--tolerance is -0.1"),
        ({"tolerance": float("nan")}, "--tolerance is nan"),
        ({"flip_tolerance": 1.5}, "--flip-tolerance is 1.5"),
        ({"sign": Path("none.pem")}, "none.pem is not a file"),
    ],
)
def test_options_that_make_no_sense(options, changes, match):
    refused(replace(options, **changes), InputError, match)


def test_a_source_that_is_not_there(options, tmp_path):
    refused(replace(options, source=tmp_path / "no such.pth"), CheckpointError, "does not exist")
    (tmp_path / "empty").mkdir()
    refused(replace(options, source=tmp_path / "empty"), CheckpointError, "run")


def test_a_bundle_that_cannot_be_written(options, tmp_path, monkeypatch):
    from stageproof.export import preconditions

    (tmp_path / "file").write_text("mine")
    blocked = replace(options, out=tmp_path / "file" / "bundle")
    with pytest.raises(InputError, match=r"cannot be written: .*file is not a folder"):
        check(blocked)
    monkeypatch.setattr(preconditions.os, "access", lambda path, mode: mode == 4)
    refused(options, InputError, "no write permission for")
    monkeypatch.undo()
    monkeypatch.setattr(preconditions.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    refused(options, InputError, "GB free; this export needs about")


def test_a_bundle_that_is_broken_is_refused_before_it_is_replaced(options):
    options.out.mkdir(parents=True)
    (options.out / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        check(options)


def test_an_engine_that_is_not_installed(options, monkeypatch):
    from stageproof.export import preconditions
    from stageproof.export.formats import FORMATS
    from stageproof.runtime.backends import BACKENDS

    monkeypatch.setattr(FORMATS["openvino"], "REQUIRES", {"no_such": "openvino"})
    refused(replace(options, to=("openvino",)), DependencyError, r"pip install 'stageproof\[openvino\]'")
    monkeypatch.undo()
    for module in BACKENDS.values():
        monkeypatch.setattr(module, "REQUIRES", {"no_such": "x"})
    refused(options, DependencyError, "no installed backend can check onnx artifacts")
    monkeypatch.undo()
    monkeypatch.setattr(preconditions, "find_spec", lambda name: None)
    refused(replace(options, precision=("int8",)), DependencyError, "quantising onnx needs the package onnxruntime")


def test_calibration_data_of_int8_for_a_checkpoint(options, tmp_path):
    int8 = replace(options, precision=("fp32", "int8"))
    refused(int8, DatasetError, "a checkpoint without a run names none.*--calibration-data DIR_OR_PARQUET")
    refused(replace(int8, calibration_data=tmp_path / "gone"), DatasetError, "gone does not exist")
    few = write_images(tmp_path / "few", 100)
    refused(replace(int8, calibration_data=few), DatasetError, "has 100 calibration images; more than 100")
    enough = write_images(tmp_path / "enough", 101)
    check(replace(int8, calibration_data=enough))


def test_calibration_data_of_int8_for_a_run(options, tmp_path):
    data = write_images(tmp_path / "data", 256)
    run = make_run(tmp_path / "run", data, 0, 150)
    int8 = replace(options, source=run, precision=("int8",))
    check(int8)
    data.rename(tmp_path / "elsewhere")
    refused(int8, DatasetError, "the data of run is no longer at .*data. .*--data PATH")
    check(replace(int8, parity_data=tmp_path / "elsewhere"))


@pytest.mark.parametrize(("precision", "needed"), [("fp16", 299), ("bf16", 149), ("int8", 149)])
def test_too_few_images_for_a_precision_are_counted_before_anything_is_built(options, tmp_path, precision, needed):
    data = write_images(tmp_path / "data", needed + 110)
    calibration = replace(options, calibration_data=data_of_its_own(tmp_path / "more"), precision=(precision,))
    short = make_run(tmp_path / "short", data, 0, needed - 1)
    refused(
        replace(calibration, source=short),
        InputError,
        rf"{precision} cannot pass on {needed - 1} images of {needed - 1} patients .* that takes about {needed} "
        r"patients with 1 images each.*--flip-tolerance 0\.0",
    )
    check(replace(calibration, source=make_run(tmp_path / "enough", data, 0, needed)))
    # fp32 has no bound to show.
    check(replace(calibration, source=short, precision=("fp32",)))
    check(replace(calibration, source=short, flip_tolerance=0.5))


def test_the_flip_tolerance_that_it_names_is_enough(options, tmp_path):
    data = write_images(tmp_path / "data", 114)
    fp16 = replace(options, parity_data=data, precision=("fp16",))
    with pytest.raises(InputError) as refusal:
        check(fp16)
    named = float(str(refusal.value).split("--flip-tolerance ")[1].split(". ")[0])
    check(replace(fp16, flip_tolerance=named))


def test_phantoms_are_as_many_as_are_needed(options, tmp_path):
    """The demo's own run holds out 114 slices; more people are drawn for it."""
    run = make_run(tmp_path / "run", None, 462, 114)
    check(replace(options, source=run, precision=("fp32", "fp16", "bf16", "int8")))
    few = replace(options, source=run, precision=("fp16",), parity_images=114)
    refused(few, InputError, "of 19 patients.* takes about 89 patients with 6 images each.*--parity-images")


def test_a_key_that_cannot_sign(options, tmp_path, monkeypatch):
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    from stageproof.export.bundle import signing

    found = signing.find_spec
    monkeypatch.setattr(signing, "find_spec", lambda name: name == "model_signing" or found(name))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    curve, plain = ec.generate_private_key(ec.SECP256R1()), serialization.NoEncryption()
    keys = {
        "it is not a private key": b"no key",
        "it is encrypted": curve.private_bytes(pem, pkcs8, serialization.BestAvailableEncryption(b"secret")),
        "it is a .*Ed25519": ed25519.Ed25519PrivateKey.generate().private_bytes(pem, pkcs8, plain),
    }
    key = tmp_path / "key.pem"
    for match, content in keys.items():
        key.write_bytes(content)
        refused(replace(options, sign=key), InputError, match)
    key.write_bytes(curve.private_bytes(pem, pkcs8, plain))
    check(replace(options, sign=key))


def test_nothing_heavy_is_imported_before_a_refusal(tmp_path):
    """The order of events, not a clock: what takes seconds to import is not there when int8 is refused."""
    (tmp_path / "model.pth").write_bytes(bytes(1000))
    code = (
        "import json, sys\nfrom export.__main__ import main\n"
        f"status = main([{str(tmp_path / 'model.pth')!r}, '--precision', 'int8', '--out', {str(tmp_path / 'b')!r}])\n"
        "print(json.dumps([status, sorted({name.split('.')[0] for name in sys.modules})]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    status, modules = json.loads(done.stdout)
    assert status == 2
    assert done.stderr.splitlines()[-1].startswith("DatasetError: int8 and fp8 are calibrated on training images")
    heavy = {"torch", "torchvision", "onnx", "onnxruntime", "openvino", "scipy", "sklearn", "matplotlib", "pyarrow"}
    assert not heavy & set(modules)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
