"""What the runtime tests share: copies of the bundle that may be changed, and predictors that are loaded once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stageproof.runtime import Predictor, backends, preprocess, read_image
from stageproof.runtime.bundle.manifest import METADATA_KEY, Document, Golden, Manifest, read_manifest, sha256_file
from stageproof.runtime.guard.ood_guard import fit
from stageproof.runtime.labels import LABELS
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.serialization.digests import UNSEALED, seal
from tests import tiny

SERVED = [
    f"{form} in {name}"
    for name in backends.available()
    for form in backends.BACKENDS[name].FORMATS
    if "cpu" in backends.BACKENDS[name].DEVICES
]
"""Every format in every backend that is installed here and runs without a GPU."""


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle of one's own: its manifest may be rewritten; an artifact is replaced, never written in place."""
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder, copy_function=os.link)
    manifest = folder / "manifest.json"
    text = manifest.read_bytes()
    manifest.unlink()
    manifest.write_bytes(text)
    return folder


@pytest.fixture
def edit(copy: Path) -> Callable[[Callable[[dict[str, Any]], object]], Path]:
    """Change the copy's manifest as an exporter could have written it: with a digest that fits."""

    def change(how: Callable[[dict[str, Any]], object]) -> Path:
        path = copy / "manifest.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        data.pop("sha256")
        how(data)
        path.write_text(seal(json.dumps({**data, "sha256": UNSEALED})), encoding="utf-8")
        return copy

    return change


@pytest.fixture
def recalibrated(copy: Path, edit: Callable) -> Callable[..., Path]:
    """Function: values of the model → the copy as an export of `model.onnx` with those would have written it."""

    def change(**values: float) -> Path:
        import onnx

        path = copy / "model.onnx"
        model = onnx.load(path)
        (entry,) = [entry for entry in model.metadata_props if entry.key == METADATA_KEY]
        entry.value = json.dumps({**json.loads(entry.value), **values})
        path.unlink()
        onnx.save(model, path)

        def rewrite(data: dict[str, Any]) -> None:
            data["model"].update(values)
            data["artifacts"] = [entry for entry in data["artifacts"] if entry["file"] == "model.onnx"]
            data["artifacts"][0].update(sha256=sha256_file(path), size_bytes=path.stat().st_size)

        (copy / "model.ts").unlink(missing_ok=True)
        return edit(rewrite)

    return change


@pytest.fixture(scope="session", autouse=True)
def tiny_network() -> Iterator[None]:
    """`runtime.backends.networks` knows the network of `tests.tiny`, whose bundles these tests load in milliseconds."""
    with tiny.known_to_runtime():
        yield


def exported(folder: Path, *formats: str) -> int:
    """Write the bundle of a network for 32 × 32 pixels, the same each time, in these formats; 0, for `once`."""
    folder.mkdir()
    checkpoint = tiny.write_checkpoint(folder / "tiny.pth", spec=InputSpec.imagenet(32))
    tiny.make(checkpoint, folder / "bundle", formats, image_size=32, labels=LABELS)
    return 0


@pytest.fixture(scope="session")
def bundle(once: Callable[[str, Callable[[Path], int]], Path]) -> Path:
    """A bundle of `onnx` and `torchscript`. Do not change it: copy it."""
    return once("served", lambda folder: exported(folder, "onnx", "torchscript")) / "bundle"


@pytest.fixture(scope="session")
def other_formats(once: Callable[[str, Callable[[Path], int]], Path]) -> Path:
    """As `bundle`, of the same network, with the formats that it has not."""
    return once("others", lambda folder: exported(folder, "openvino", "torch-export", "pytorch")) / "bundle"


@pytest.fixture(scope="session", params=SERVED)
def predictor(request: pytest.FixtureRequest, bundle: Path, other_formats: Path) -> Predictor:
    """Each format in each backend."""
    form, _, backend = request.param.partition(" in ")
    folder = bundle if form in ("onnx", "torchscript") else other_formats
    served = Predictor(folder, backend=backend, guard=False, trust_code=True)
    assert backends.SUFFIXES[served.artifact.suffix] == form
    return served


@pytest.fixture(scope="session")
def onnx_predictor(bundle: Path) -> Predictor:
    """The bundle in ONNX Runtime, which every environment for these tests has."""
    return Predictor(bundle, backend="onnx", guard=False)


@pytest.fixture(scope="session")
def guarded_bundle(bundle: Path, phantoms, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with a guard fitted on `phantoms` and six golden images. Do not change it: copy it."""
    folder = tmp_path_factory.mktemp("guarded") / "bundle"
    shutil.copytree(bundle, folder, copy_function=os.link)
    plain = read_manifest(folder)
    (folder / "manifest.json").unlink()
    pictures = [read_image(phantoms.read(index)) for index in range(len(phantoms))]
    fit(pictures, phantoms.groups).write(folder / "guard-of-phantoms.npz")
    predictor = Predictor(bundle, backend="onnx", guard=False)
    golden = []
    (folder / "golden").mkdir(exist_ok=True)
    for index in range(0, len(phantoms), 16):
        path = folder / "golden" / f"phantom-{index}.png"
        path.write_bytes(phantoms.read(index))
        logits = predictor.logits(preprocess(pictures[index], predictor.model.input)[None])[0]
        golden.append(Golden(f"golden/{path.name}", sha256_file(path), tuple(map(float, logits))))
    documents = tuple(entry for entry in (*plain.documents, *plain.golden, *([plain.guard] if plain.guard else [])))
    manifest = Manifest(
        plain.model,
        plain.artifacts,
        plain.provenance,
        Document("guard-of-phantoms.npz", sha256_file(folder / "guard-of-phantoms.npz")),
        tuple(golden),
        tuple(Document(entry.file, entry.sha256) for entry in documents),
        plain.labels_from,
    )
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def guarded(guarded_bundle: Path) -> Predictor:
    """A predictor that judges images before it speaks of them."""
    return Predictor(guarded_bundle, backend="onnx")
