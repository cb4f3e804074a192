"""What artifacts say of themselves, read without an engine; and files that would mislead a careless reader."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from stageproof.runtime.artifacts.metadata import FORMATS, METADATA_KEY, read_description, read_metadata
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError

OLD = Path(__file__).parents[1] / "data" / "bundle-0.1"
MODEL = read_manifest(OLD).model
TEXT = json.dumps(MODEL.to_dict())
READ = [name for name, (_, reader) in FORMATS.items() if reader is not None and name != "aotinductor"]


def file_of(name: str) -> Path:
    return OLD / f"model{FORMATS[name][0]}"


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def sized(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def metadata(text: str, key: str = METADATA_KEY) -> bytes:
    """An entry of ModelProto.metadata_props."""
    return sized(14, sized(1, key.encode()) + sized(2, text.encode()))


def archive(*texts: str, name: str = f"archive/extra/{METADATA_KEY}") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *args, **settings: None)  # of the name that comes twice
        for text in texts:
            file.writestr(name, text)
    return buffer.getvalue()


def topology(value: str, before: str = "", after: str = "") -> bytes:
    quoted = value.replace("&", "&amp;").replace('"', "&quot;")
    entry = f'<rt_info><framework><{METADATA_KEY} value="{quoted}"/></framework></rt_info>'
    return f'<?xml version="1.0"?>{before}<net name="x"><layers/>{entry}{after}</net>'.encode()


def tensors(header: dict) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize("name", READ)
def test_every_format_says_what_its_manifest_says(name: str) -> None:
    found = read_metadata(file_of(name), name)
    assert found is not None
    assert found.model == MODEL
    assert (found.precision, found.guarded, found.takes, found.gives) == (None, False, None, "logits")


def test_artifacts_of_today_say_more(tiny_bundle: Path) -> None:
    for artifact in verified(tiny_bundle).artifacts:
        found = read_metadata(tiny_bundle / artifact.file, artifact.format)
        assert found is not None
        assert (found.precision, found.guarded) == ("fp32", True), artifact.file


def test_an_engine_has_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"an engine")
    assert read_metadata(tmp_path / "model.engine", "tensorrt") is None


def test_what_aotinductor_compiles_in_is_found_in_every_file_that_has_it(tmp_path: Path) -> None:
    path = tmp_path / "model.aoti.pt2"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("a.wrapper", "b.kernel"):
            table = {METADATA_KEY: TEXT, "AOTI_DEVICE_KEY": "cpu"}
            file.writestr(f"model/data/aotinductor/model/{name}_metadata.json", json.dumps(table))
    found = read_metadata(path, "aotinductor")
    assert found is not None
    assert found.model == MODEL


OTHER = TEXT.replace("resnet", "other").replace('"tiny"', '"other"')
SMALL_PARTS = (
    sized(1, b"x" * 70) + varint(8 << 3) + varint(7) + varint(9 << 3 | 1) + b"8" * 8 + varint(9 << 3 | 5) + b"4444"
)

ODD: dict[str, tuple[str, bytes, str]] = {
    "onnx, none": ("onnx", SMALL_PARTS, "has no metadata"),
    "onnx, under another key": ("onnx", metadata(TEXT, "other"), "has no metadata"),
    "onnx, two that differ": ("onnx", metadata(TEXT) + metadata(OTHER), "has 2 different metadata texts"),
    "onnx, no text": (
        "onnx",
        sized(14, sized(1, METADATA_KEY.encode()) + sized(2, b"\xff\xfe")),
        "cannot be read as onnx",
    ),
    "onnx, cut in a field": ("onnx", metadata(TEXT)[:-9], "cut off"),
    "onnx, a length without end": ("onnx", b"\x72" + b"\xff" * 20, "cut off"),
    "onnx, a longer field than file": ("onnx", b"\x3a" + varint(1 << 60) + b"x", "cut off"),
    "onnx, a group": ("onnx", varint(3 << 3 | 3) + b"x", "cut off"),
    "onnx, text": ("onnx", b"not an onnx file at all", "cannot be read as onnx"),
    "xml, none": ("openvino", b"<net><layers/></net>", "has no metadata"),
    "xml, of a layer": ("openvino", b"<net><layers>" + topology(TEXT)[21:] + b"</layers></net>", "has no metadata"),
    "xml, two that differ": ("openvino", topology(TEXT, after=topology(OTHER)[42:-6].decode()), "2 different"),
    "xml, entities": ("openvino", topology("&a;", before='<!DOCTYPE x [<!ENTITY a "b">]>'), "document type"),
    "xml, UTF-16": ("openvino", topology(TEXT).decode().encode("utf-16"), "not UTF-8"),
    "xml, cut": ("openvino", topology(TEXT)[:-20], "cannot be read as openvino"),
    "zip, none": ("torchscript", archive(TEXT, name="archive/other"), "has no metadata"),
    "zip, two that differ": ("torchscript", archive(TEXT, OTHER), "2 different"),
    "zip, deeper": ("torch-export", archive(TEXT, name=f"a/b/extra/{METADATA_KEY}"), "has no metadata"),
    "zip, a bomb": ("torch-export", archive(" " * (64 << 20)), "has more than 1048576 bytes"),
    "zip, cut": ("torch-export", archive(TEXT)[:-30], "cannot be read as torch-export"),
    "zip, no archive": ("torchscript", b"PK\x03\x04 not", "cannot be read as torchscript"),
    "safetensors, none": ("pytorch", tensors({"__metadata__": {"format": "pt"}}), "has no metadata"),
    "safetensors, no metadata": ("pytorch", tensors({}), "has no metadata"),
    "safetensors, longer than ours": ("pytorch", (1 << 62).to_bytes(8, "little"), "its header would have"),
    "safetensors, empty": ("pytorch", b"", "is not JSON"),
    "safetensors, a key twice": (
        "pytorch",
        (30).to_bytes(8, "little") + b'{"__metadata__":{"a":1,"a":2}}',
        "has the key 'a' twice",
    ),
}


@pytest.mark.parametrize(("name", "content", "match"), ODD.values(), ids=ODD)
def test_odd_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes, match: str) -> None:
    path = tmp_path / f"model{FORMATS[name][0]}"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=match) as caught:
        read_metadata(path, name)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("name", READ)
def test_a_file_cut_anywhere_is_a_bundle_error_or_still_says_the_same(name: str, tmp_path: Path) -> None:
    content, path = file_of(name).read_bytes(), tmp_path / file_of(name).name
    for length in range(0, len(content), max(1, len(content) // 60)):
        path.write_bytes(content[:length])
        try:
            found = read_metadata(path, name)
        except BundleError:
            continue
        assert found is not None
        assert found.model == MODEL


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"more": 1}, "has keys that its schema does not have: 'more'"),
        ({"guarded": "yes"}, "'guarded' is 'yes', expected true or false"),
        ({"precision": 16}, "'precision' is int"),
        ({"labels": ["NonDemented"]}, "expected the classes of its clinical order"),
        ({"digest": "ab"}, "expected 64 hexadecimal digits"),
    ],
)
def test_a_description_is_read_as_strictly_as_a_manifest(change: dict, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        read_description(json.dumps({**MODEL.to_dict(), **change}), "model.onnx")
    with pytest.raises(BundleError, match="lacks 'temperature'"):
        read_description(json.dumps({k: v for k, v in MODEL.to_dict().items() if k != "temperature"}), "model.onnx")


def test_descriptions_under_both_names_of_the_project_are_refused_where_they_differ(tmp_path: Path) -> None:
    """Version 0.1 wrote the former name: a second text under the present one must not replace or hide it."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(OLD / "model.onnx")
    (entry,) = [one for one in model.metadata_props if one.key == "neurostage"]
    path = tmp_path / "model.onnx"
    model.metadata_props.add(key="stageproof", value=entry.value.replace("MildDemented", "NonDemented", 1))
    onnx.save(model, path)
    with pytest.raises(BundleError, match="2 different"):
        read_metadata(path, "onnx")
    del model.metadata_props[-1]
    model.metadata_props.add(key="stageproof", value=entry.value)
    onnx.save(model, path)
    found = read_metadata(path, "onnx")
    assert found is not None
    assert found.model.labels[0] == "MildDemented"
