"""Files that are no weights are called what they are, with the step that helps; whatever torch's reader would say."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stageproof.runtime.errors import CheckpointError
from stageproof.train.foreign.weight_files import outputs, read_state, read_weights, same_tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 98765432\n"


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, w=np.ones(3))
    return buffer.getvalue()


def onnx_graph() -> bytes:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [other])
    return helper.make_model(graph, producer_name="other").SerializeToString()


FOREIGN = {
    "LFS pointer": (POINTER, "a Git LFS pointer.*git lfs pull"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file, as Keras.*PyTorch"),
    "Keras": (zipped(model_dot_weights_dot_h5=b"", config_dot_json=b"{}"), "a Keras model.*PyTorch"),
    "ONNX": (onnx_graph, r"an ONNX graph.*python -m runtime --bundle FILE\.onnx"),
    "TensorFlow Lite": (b"\x1c\0\0\0TFL3" + bytes(50), "a TensorFlow Lite model"),
    "web page": (b"\xef\xbb\xbf\n <!DOCTYPE html><html><title>Sign in", "a web page.*Download the file again"),
    "error page": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "a web page"),
    "OpenVINO": (b'<?xml version="1.0"?>\n<net name="Model0" version="11"><layers>', "an OpenVINO model"),
    "other XML": (b'<?xml version="1.0"?><catalog/>', "text, not weights"),
    "JSON": (b'{"error": "not found"}', "text, not weights; it begins '{\"error"),
    "text": (b"weights.pth\n", "text, not weights"),
    "zip": (zipped(a__best_dot_pth=b"1", readme_dot_txt=b"2"), r"a zip archive with 2 files.*a/best\.pth.*Unpack"),
    "empty zip": (zipped(), r"a zip archive with 0 files"),
    "gzip": (gzip.compress(b"weights"), "a gzip archive.*Unpack"),
    "tar": (tarred, "a tar archive.*Unpack"),
    "npy": (array, "a NumPy array.*torch.save"),
    "npz": (arrays, r"a NumPy archive \(\.npz\)"),
    "parquet": (b"PAR1" + bytes(50) + b"PAR1", "a parquet file.*--parity-data"),
    "PNG": (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image"),
    "JPEG": (b"\xff\xd8\xff\xe0" + bytes(50), "a JPEG image"),
    "DICOM": (bytes(128) + b"DICM" + bytes(50), "a DICOM image"),
    "nothing": (b"", "empty: it has 0 bytes"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_it_is_and_what_helps(tmp_path, kind, suffix):
    content, message = FOREIGN[kind]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content() if callable(content) else content)
    with pytest.raises(CheckpointError, match=rf"model\{suffix} is {message}") as caught:
        read_state(path)
    assert "pickle" not in str(caught.value)


@pytest.mark.parametrize(("suffix", "what"), [(".pb", "TensorFlow"), (".engine", "TensorRT"), (".mlmodel", "Core ML")])
def test_what_only_its_name_tells(tmp_path, suffix, what):
    (tmp_path / f"model{suffix}").write_bytes(b"\x08\x01\x12\xff\x00\x81" + bytes(50))
    with pytest.raises(CheckpointError, match=rf"is an? {what}.*PyTorch checkpoint"):
        read_state(tmp_path / f"model{suffix}")
    torch.save({"w": torch.ones(1)}, tmp_path / f"model{suffix}")
    assert set(read_state(tmp_path / f"model{suffix}")) == {"w"}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_and_exported_programs_name_the_line_that_saves_their_weights(tmp_path):
    script, program = tmp_path / "my model.pth", tmp_path / "program.pth"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), script)
    torch.export.save(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)), program)
    with pytest.raises(CheckpointError, match=r"is a TorchScript program") as caught:
        read_state(script)
    line = str(caught.value).partition("weights: ")[2].rstrip(".").replace("weights.pth", str(tmp_path / "w.pth"))
    exec(line, {"torch": torch})  # what the message says to do works, also where the path has a space
    assert set(read_state(tmp_path / "w.pth")) == {"weight", "bias"}
    with pytest.raises(CheckpointError, match=r"is a program that torch\.export saved.*torch\.export\.load"):
        read_state(program)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.bin", "a"])
def test_weights_are_read_by_their_content_whatever_their_name(tmp_path, name):
    state = {"module.fc.weight": torch.ones(2, 3)}
    save_file(state, tmp_path / "s", {"labels": '["a", "b"]'})
    (tmp_path / "s").rename(tmp_path / name)
    assert set(read_state(tmp_path / name)) == {"fc.weight"}
    assert read_weights(tmp_path / name).beside == {"labels": '["a", "b"]'}
    torch.save(state, tmp_path / name)
    assert set(read_state(tmp_path / name)) == {"fc.weight"}
    torch.save(state, tmp_path / name, _use_new_zipfile_serialization=False)
    assert set(read_state(tmp_path / name)) == {"fc.weight"}


def test_numbers_of_numpy_are_read_and_nothing_else_of_it(tmp_path):
    numbers = {"epoch": np.int64(3), "loss": np.float32(0.5), "class_to_idx": {"a": np.int64(0)}, "best": np.bool_(1)}
    torch.save({"state_dict": {"w": torch.ones(1)}, **numbers}, tmp_path / "a.pth")
    assert read_weights(tmp_path / "a.pth").beside == numbers
    torch.save({"w": torch.ones(1), "x": np.array([print], object)}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"contains more than tensors.*a pickle can run code"):
        read_state(tmp_path / "b.pth")


def test_a_whole_network_is_refused_by_the_name_of_its_class(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(
        CheckpointError, match=r"whole network of the class torch\.nn\.modules\.linear\.Linear, .*state dict"
    ):
        read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_other_libraries(tmp_path, protocol):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"coef": Path("x")}, protocol))
    with pytest.raises(CheckpointError, match=r"a\.pth is a pickle that torch\.save did not write"):
        read_state(tmp_path / "a.pth")


def test_random_bytes_never_raise_another_error(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(200):
        head = [b"", b"PK\x03\x04", b"\x80\x02", b"\x08\x07", b"\x40" + bytes(7) + b"{"][number % 5]
        (tmp_path / "a.pth").write_bytes(head + rng.bytes(int(rng.integers(0, 300))))
        with pytest.raises(CheckpointError):
            read_state(tmp_path / "a.pth")


def test_what_lies_among_the_tensors_is_kept_apart(tmp_path):
    torch.save({"fc.weight": torch.ones(4, 2), "class_to_idx": {"a": 0}, "classes": ["a"]}, tmp_path / "a.pth")
    weights = read_weights(tmp_path / "a.pth")
    assert set(weights.state) == {"fc.weight"}
    assert weights.beside == {"class_to_idx": {"a": 0}, "classes": ["a"]}


def test_outputs_of_a_head():
    state = {"fc.10.weight": torch.ones(4, 8), "fc.2.weight": torch.ones(8, 16), "fc.10.bias": torch.ones(4)}
    assert outputs(state) == 4
    assert outputs({"classifier.weight": torch.ones(3, 2)}) == 3
    assert outputs({"conv.weight": torch.ones(3, 2, 1, 1)}) is None


def test_the_same_tensors_in_another_file(tmp_path):
    state = {"a": torch.ones(3), "b": torch.zeros(2, 2)}
    save_file(state, tmp_path / "a.safetensors", {"labels": json.dumps(["x"])})
    assert same_tensors(state, tmp_path / "a.safetensors")
    assert not same_tensors({**state, "b": torch.ones(2, 2)}, tmp_path / "a.safetensors")
    assert not same_tensors({"a": state["a"]}, tmp_path / "a.safetensors")
    (tmp_path / "b").write_bytes(b"nothing")
    assert not same_tensors(state, tmp_path / "b")
    assert not same_tensors(state, tmp_path / "none")


def test_an_archive_that_swells_is_refused_before_it_is_unpacked(tmp_path):
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"fc.weight": torch.zeros(4, 2**20)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert bomb.stat().st_size < 2**16
    with pytest.raises(CheckpointError, match=r"would take 16\d+ bytes of memory"):
        read_weights(bomb)


def test_an_archive_that_was_compressed_again_is_read(tmp_path):
    plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
    state = {"fc.weight": torch.randn(4, 2**10)}
    torch.save(state, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    assert torch.equal(read_weights(packed).state["fc.weight"], state["fc.weight"])
