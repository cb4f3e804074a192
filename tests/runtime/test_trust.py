"""Artifacts that carry code are loaded only where they are trusted, and only with what an export puts into them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from stageproof.runtime import BundleError, InputError, Predictor, TrustError, backends
from stageproof.runtime.__main__ import main
from stageproof.runtime.artifacts.torch_archive import examine
from stageproof.runtime.artifacts.verified_bytes import CODE
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.inference.selection import candidates
from tests.runtime.hostile import OLD, archive, copied, exchanged, only, rewritten

pytestmark = pytest.mark.skipif("torchscript" not in backends.available(), reason="these files are PyTorch's")
KINDS = {"torchscript": "model.ts", "torch-export": "model.pt2"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copied(tmp_path / "bundle")


@pytest.mark.parametrize(("backend", "name"), KINDS.items())
def test_code_is_loaded_only_where_it_is_trusted(bundle: Path, backend: str, name: str) -> None:
    with pytest.raises(TrustError, match=rf"{name} contains code: .*(\.onnx, \.xml, \.safetensors).*trust_code=True"):
        Predictor(bundle, backend=backend)
    assert Predictor(bundle, backend=backend, trust_code=True, self_test=True).artifact.name == name


@pytest.mark.parametrize("name", ["model.ts", "model.pt2"])
@pytest.mark.parametrize("trust_code", [False, True])
def test_a_lone_file_of_code_is_never_loaded(bundle: Path, name: str, trust_code: bool) -> None:
    with pytest.raises(
        TrustError, match=rf"{name} contains code.*A lone file of this kind is never loaded.*its bundle"
    ):
        Predictor(bundle / name, trust_code=trust_code)


def test_an_engine_file_is_code_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.engine").write_bytes(b"ftrt")
    monkeypatch.setattr(backends, "missing", lambda name: None)
    with pytest.raises(TrustError, match=r"model\.engine contains code: a TensorRT engine is machine code"):
        Predictor(tmp_path / "model.engine", device="cuda", trust_code=True)
    assert set(CODE) == {"torchscript", "torch-export", "aotinductor", "tensorrt"}


def test_code_comes_last_whatever_the_manifest_claims(bundle: Path) -> None:
    def fast(data: dict) -> None:
        for artifact in data["artifacts"]:
            for check in artifact["checks"]:
                check["latency_ms"] = 0.001 if artifact["format"] in CODE else 9.0

    manifest = read_manifest(rewritten(bundle, fast))
    formats = [one.artifact.format in CODE for one in candidates(manifest, None, None)]
    assert formats == sorted(formats)
    for trust_code in (False, True):
        predictor = Predictor(bundle, trust_code=trust_code)
        assert predictor.artifact.suffix not in (".ts", ".pt2")
    assert sum("contains code: loaded only with trust_code=True" in line for line in Predictor(bundle).explain()) == 2
    tuned = Predictor(bundle, tune=True, trust_code=True)
    assert tuned.artifact.suffix not in (".ts", ".pt2")


def test_a_bundle_of_nothing_but_code(bundle: Path, capsys: pytest.CaptureFixture) -> None:
    only(bundle, "model.ts")
    with pytest.raises(TrustError, match=r"No other artifact of .*model\.ts contains code.*trust_code=True"):
        Predictor(bundle)
    assert Predictor(bundle, trust_code=True).backend == "torchscript"
    image = str(OLD / "golden" / "00.png")
    assert main(["--bundle", str(bundle), image]) == 2
    assert "TrustError: " in capsys.readouterr().err
    assert main(["--bundle", str(bundle), "--trust-code", image]) in (0, 1)
    assert f"{image}\n" in capsys.readouterr().out


def test_trust_is_no_seal(bundle: Path) -> None:
    with (bundle / "model.ts").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"model\.ts has SHA-256"):
        Predictor(bundle, backend="torchscript", trust_code=True)


def test_trust_is_said_with_true_and_nothing_else(bundle: Path) -> None:
    with pytest.raises(InputError, match="trust_code is 'no'"):
        Predictor(bundle, trust_code="no")  # type: ignore[arg-type]


class Runs:
    """A pickle that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def tensors(path: Path) -> bytes:
    """What torch.save writes, with a pickle that runs in place of its own."""
    import io

    import torch

    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, buffer)
    inner = path.with_suffix(".inner")
    inner.write_bytes(buffer.getvalue())
    return archive(inner, {"data.pkl": pickle.dumps(Runs(path))})


def pickled_weight(content: bytes) -> bytes:
    table = json.loads(content)
    next(iter(table["config"].values()))["use_pickle"] = True
    return json.dumps(table).encode()


def config() -> bytes:
    import zipfile

    with zipfile.ZipFile(OLD / "model.pt2") as file:
        return file.read("archive/data/weights/model_weights_config.json")


ELF = b"\x7fELF" + bytes(60)
PT2: dict[str, tuple[Callable[[Path], dict[str, bytes]], str]] = {
    "a pickle that runs": (lambda made: {"data/sample_inputs/model.pt": tensors(made)}, "the opcode|names 'pathlib"),
    "no archive": (lambda made: {"data/sample_inputs/model.pt": pickle.dumps(Runs(made))}, "not an archive"),
    "an unpickled weight": (
        lambda made: {
            "data/weights/model_weights_config.json": pickled_weight(config()),
            "data/weights/weight_0": tensors(made),
        },
        "would be unpickled",
    ),
    "weights of an old version": (lambda made: {"data/weights/model.pt": tensors(made)}, "model.pt"),
    "constants of an old version": (lambda made: {"data/constants/model.pt": tensors(made)}, "model.pt"),
    "an opaque object": (lambda made: {"data/constants/opaque_obj_0": pickle.dumps(Runs(made))}, "opaque_obj_0"),
    "a script object": (lambda made: {"data/constants/custom_obj_0": ELF}, "machine code"),
    "a shared object": (lambda made: {"data/aotinductor/model/a.so": ELF}, "machine code"),
    "a shared object, renamed": (lambda made: {"extra/notes": ELF}, "machine code"),
    "a kernel": (lambda made: {"data/aotinductor/model/k.cubin": b"x"}, "machine code"),
    "source code": (lambda made: {"data/aotinductor/model/a.cpp": b"int x;"}, "no export"),
    "a path upwards": (lambda made: {"../x": b"x"}, "not a canonical path"),
    "python": (lambda made: {"extra/a/b.py": b"x"}, "no export"),
}


@pytest.mark.parametrize(("changed", "match"), PT2.values(), ids=PT2)
def test_a_pt2_with_more_than_a_network_is_refused_also_when_trusted(
    bundle: Path, tmp_path: Path, changed: Callable[[Path], dict[str, bytes]], match: str
) -> None:
    made = tmp_path / "made"
    exchanged(bundle, "model.pt2", archive(bundle / "model.pt2", changed(made)))
    with pytest.raises(BundleError, match=match) as refused:
        Predictor(bundle, backend="torch-export", trust_code=True)
    assert "model.pt2 was not loaded" in str(refused.value)
    assert not made.exists()


def test_the_attack_would_have_worked(tmp_path: Path) -> None:
    """Guards the test above: PyTorch by itself runs the pickle."""
    import torch

    made = tmp_path / "made"
    (tmp_path / "x.pt2").write_bytes(
        archive(OLD / "model.pt2", {"data/sample_inputs/model.pt": pickle.dumps(Runs(made)), "byteorder": b"little"})
    )
    with pytest.raises(Exception):  # noqa: B017  what it says differs from version to version
        torch.export.load(tmp_path / "x.pt2")
    if not made.exists():
        pytest.skip("this PyTorch no longer tries again without weights_only")


TS = {
    "reads files": (b"def f(self):\n  return torch.from_file('/etc/passwd', False, 10)\n", "calls 'from_file'"),
    "writes files": (b"def f(x: Tensor):\n  torch.save(x, '/tmp/x')\n", r"calls 'torch\.save'"),
    "an operator of a library": (b"def f(x: Tensor):\n  ops.evil.run(x)\n", r"calls 'ops\.evil'"),
    "a class of a library": (b"def f(x: __torch__.torch.classes.evil.C):\n  pass\n", "torch.classes"),
}


@pytest.mark.parametrize(("source", "match"), TS.values(), ids=TS)
def test_a_ts_that_reaches_out_is_refused_also_when_trusted(bundle: Path, source: bytes, match: str) -> None:
    exchanged(bundle, "model.ts", archive(bundle / "model.ts", {"code/__torch__/more.py": source}))
    with pytest.raises(BundleError, match=match):
        Predictor(bundle, backend="torchscript", trust_code=True)


def test_archives_that_two_readers_could_read_differently(bundle: Path) -> None:
    """Python's reader and PyTorch's find an archive's directory in their own ways."""
    content = (bundle / "model.pt2").read_bytes()
    examine(content, "torch-export")
    end = len(content) - 22
    ways = {
        "something before": b"#!" + content,
        "something behind": content + b"x",
        "a comment": content[:-2] + b"\x01\x00x",
        "another count": content[: end + 10] + b"\xff\xff" + content[end + 12 :],
        "another start": content[: end + 16] + b"\0\0\0\0" + content[end + 20 :],
        "a directory twice": content + content[-22:],
        "another name in an entry": content.replace(b"archive/models/model.json", b"archive/models/madel.json", 1),
        "cut": content[: len(content) // 2],
        "empty": b"",
    }
    for what, other in ways.items():
        with pytest.raises((ValueError, OSError, KeyError)) as refused:
            examine(other, "torch-export")
        assert str(refused.value), what


def test_an_archive_that_swells(bundle: Path) -> None:
    exchanged(
        bundle,
        "model.ts",
        archive(bundle / "model.ts", {"code/__torch__/bomb.py": b"#" * (80 << 20)}, compress=True),
    )
    assert (bundle / "model.ts").stat().st_size < 1 << 20
    with pytest.raises(BundleError, match="compressed entries have more than"):
        Predictor(bundle, backend="torchscript", trust_code=True)


def test_what_is_written_for_other_networks_passes() -> None:
    """Every entry that `torch.export.save`, `torch.jit.save` and `torch.save` write here is known."""
    import io
    import warnings

    import torch

    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Flatten()).eval()
    for dtype in (torch.float32, torch.bfloat16):
        example = torch.zeros(2, 3, 8, 8, dtype=dtype)
        program, script, state = io.BytesIO(), io.BytesIO(), io.BytesIO()
        shapes = ({0: torch.export.Dim("batch")},)
        torch.export.save(torch.export.export(module.to(dtype), (example,), dynamic_shapes=shapes), program)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.freeze(torch.jit.trace(module, example)), script)
        torch.save(module.state_dict(), state)
        examine(program.getvalue(), "torch-export")
        examine(script.getvalue(), "torchscript")
        examine(state.getvalue(), "tensors")
