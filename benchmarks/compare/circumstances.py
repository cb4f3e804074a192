"""What differs between two runs besides the code, and which of their peers it left as they were."""

from __future__ import annotations

from collections.abc import Mapping

from stageproof.benchmarks.compare.statistics import LEAST_SAMPLES
from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.records.schema import Row
from stageproof.runtime.errors import InputError

Pair = tuple[Row, Row]
"""One row as the first run has it, and the second."""

_SAME = (
    ("cpu", "CPU"),
    ("cpus", "CPUs"),
    ("memory_bytes", "bytes of memory"),
    ("system", "system"),
    ("python", "Python"),
)
_MACHINE = ("CPU", "CPUs")
_LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch", "torchvision"),
    "aotinductor": ("torch", "torchvision"),
    "onnx": ("onnxruntime", "onnxruntime-gpu"),
    "openvino": ("openvino",),
}
"""By a peer's backend: the packages whose versions make it another contender; numpy and pillow are behind all."""


def check_work(before: Record, after: Record) -> None:
    """Raises InputError unless both runs asked networks of the same shape."""
    shapes = []
    for record in (before, after):
        spec = record.facts["bundle"].get("input") or {}
        shapes.append(
            (record.facts["bundle"].get("architecture"), spec.get("height"), spec.get("width"), spec.get("channels"))
        )
    if shapes[0] != shapes[1]:
        said = [f"{name} at {height} × {width} × {channels}" for name, height, width, channels in shapes]
        raise InputError(
            f"{before.name} measured {said[0]}, {after.name} {said[1]}: their times say nothing of the code. Measure "
            "bundles of the same architecture and image size."
        )


def changed_circumstances(before: Record, after: Record) -> dict[str, tuple[object, object]]:
    """Circumstances that differ, packages among them: what → (before, after)."""
    first, second = before.machine, after.machine
    found = {said: (first.get(key), second.get(key)) for key, said in _SAME if first.get(key) != second.get(key)}
    versions = first.get("versions") or {}, second.get("versions") or {}
    for package in sorted({*versions[0], *versions[1]} - {"stageproof", "neurostage"}):
        if versions[0].get(package) != versions[1].get(package):
            found[package] = versions[0].get(package), versions[1].get(package)
    return found


def machines_differ(changed: Mapping[str, object]) -> bool:
    """Whether the runs were taken on two machines."""
    return any(what in changed for what in _MACHINE)


def untouched(pair: Pair, changed: Mapping[str, object]) -> bool:
    """Whether a row is a peer that is the same in both runs, with samples enough to be held against."""
    row = pair[1]
    behind = (
        *_LIBRARIES.get(row.backend, ("torch", "torchvision", "onnxruntime", "openvino")),
        "numpy",
        "pillow",
        "Python",
    )
    return (
        row.kind == "peer"
        and not any(what in changed for what in behind)
        and pair[0].settings == row.settings
        and min(len(one.samples_ms) for one in pair) >= LEAST_SAMPLES
    )
