"""Bundles of a linear network with any label set, written without an export: one `.onnx` of some kilobytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stageproof.runtime import preprocess, read_image
from stageproof.runtime.bundle.manifest import METADATA_KEY, Artifact, Check, Golden, Manifest
from stageproof.runtime.labels import LabelSet, label_set
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.preprocess import InputSpec
from stageproof.runtime.study import StudyRule
from stageproof.train.data.phantom.__main__ import draw_slice

SIZE = 32
SETS = {
    "2": label_set(["CN", "AD"]),
    "3": label_set(["Grad 1.0 (gesund)", "Größe ≥ 2", "重度 & <rest>"], ["重度 & <rest>"]),
    "7": label_set(["none", "label", "=SUM(A1)", "@x", "-1", "+1", "file"], ["file", "+1"]),
    "20": label_set([f"Klasse {index:02d}" for index in range(20)]),
    "cdr": label_set(["CDR 0", "CDR 0.5", "CDR 1", "CDR 2", "CDR 3"]),
}
"""Names with spaces, dots, signs of XML and formulas, letters beyond ASCII, and those of columns."""


def model_of(classes: LabelSet, seed: int = 0) -> ModelInfo:
    """A model whose outputs are in another order than the clinical one, with a rule for studies."""
    order = np.random.default_rng(seed).permutation(len(classes))
    if (order == np.arange(len(classes))).all():
        order = order[::-1]
    intercepts = np.linspace(-0.2, 0.2, len(classes))
    return ModelInfo(
        "linear",
        "ab" * 32,
        tuple(classes.names[at] for at in order),
        classes,
        InputSpec(SIZE, SIZE, 1, (0.2,), (0.3,)),
        temperature=1.5,
        study=StudyRule(tuple(map(float, intercepts)), 1.2),
    )


def weights(model: ModelInfo, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """(pixels, classes) and (classes,) float32. Over the slices of `_slice` the logits of each class have mean 0, so
    that several classes are predicted."""
    weight = np.random.default_rng(seed).normal(0, 0.2, (SIZE * SIZE, len(model.labels))).astype(np.float32)
    pixels = np.stack([preprocess(_slice(index), model.input).reshape(-1) for index in range(8)])
    return weight, -(pixels @ weight).mean(0)


def _slice(index: int) -> Image.Image:
    return Image.fromarray(draw_slice(index % 4, index, 0.1 + 0.1 * index, size=SIZE, seed=5))


def logits(model: ModelInfo, image: Path) -> np.ndarray:
    """(classes,) float32 of one image, computed without an engine, in the order of `model.labels`."""
    weight, bias = weights(model)
    return preprocess(read_image(image), model.input).reshape(-1) @ weight + bias


def write_images(folder: Path, count: int = 6) -> list[Path]:
    """Phantom slices as PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(images):
        _slice(index).save(path)
    return images


def write_artifact(path: Path, model: ModelInfo, described: dict[str, Any] | None = None) -> Artifact:
    """An `.onnx` with the weights of `weights`. described: its metadata, if it is not that of the model."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight, bias = weights(model)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["images"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weight", "bias"], ["logits"]),
        ],
        "linear",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(model.labels)])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    entry = file.metadata_props.add()
    facts = {**model.to_dict(), "precision": "fp32", "labels_from": "run"}
    entry.key, entry.value = METADATA_KEY, json.dumps(facts if described is None else described)
    path.unlink(missing_ok=True)
    onnx.save(file, path)
    content = path.read_bytes()
    check = Check("onnx", "onnxruntime", {}, 1.0, "here")
    return Artifact("onnx", "fp32", path.name, hashlib.sha256(content).hexdigest(), len(content), (check,))


def write_bundle(folder: Path, model: ModelInfo) -> Path:
    """A bundle with two equal artifacts and two golden images, without a guard."""
    images = write_images(folder / "golden", 2)
    golden = [
        Golden(
            f"golden/{path.name}",
            hashlib.sha256(path.read_bytes()).hexdigest(),
            tuple(float(value) for value in logits(model, path)),
        )
        for path in images
    ]
    artifacts = [write_artifact(folder / name, model) for name in ("model.onnx", "second.onnx")]
    manifest = Manifest(model, tuple(artifacts), {}, golden=tuple(golden), labels_from="run")
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return folder


def rewrite(folder: Path, change: Any) -> None:
    """Rewrite the manifest, after `change` of its data, as an exporter would have: with a digest that fits."""
    from stageproof.runtime.serialization.digests import UNSEALED, seal

    path = folder / "manifest.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(seal(json.dumps({**data, "sha256": UNSEALED})), encoding="utf-8")


def with_artifact(folder: Path, name: str, model: ModelInfo, **described: Any) -> None:
    """Replace an artifact of the bundle by one whose metadata says `described`, and its entry in the manifest."""
    facts = {"precision": "fp32", "labels_from": "run", **described}
    made = write_artifact(folder / name, model, {**model.to_dict(), **facts})

    def change(data: dict[str, Any]) -> None:
        entry = next(entry for entry in data["artifacts"] if entry["file"] == name)
        entry.update(sha256=made.sha256, size_bytes=made.size_bytes)

    rewrite(folder, change)


def permuted(model: ModelInfo) -> ModelInfo:
    """The model with its first two outputs exchanged."""
    first, second, *rest = model.labels
    return replace(model, labels=(second, first, *rest))
