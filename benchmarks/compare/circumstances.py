"""Differences in hardware and versions between two runs, and the peers that are unaffected by them (controls)."""

from __future__ import annotations

from collections.abc import Mapping

from stageproof.benchmarks.compare.statistics import LEAST_SAMPLES
from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.records.schema import Row
from stageproof.runtime.errors import InputError

Pair = tuple[Row, Row]
"""(row in the first run, the same row in the second run)."""

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
"""Backend of a peer → packages whose version must be the same in both runs; numpy and pillow are required for all."""


def check_work(before: Record, after: Record) -> None:
    """Raise InputError unless both runs measured the same architecture and input size."""
    shapes = []
    for record in (before, after):
        spec = record.facts["bundle"].get("input") or {}
        shapes.append(
            (record.facts["bundle"].get("architecture"), spec.get("height"), spec.get("width"), spec.get("channels"))
        )
    if shapes[0] != shapes[1]:
        names = [f"{name} at {height} × {width} × {channels}" for name, height, width, channels in shapes]
        raise InputError(
            f"{before.name} measured {names[0]}, {after.name} {names[1]}: their times cannot be compared. Measure "
            "bundles of the same architecture and image size."
        )


def changed_circumstances(before: Record, after: Record) -> dict[str, tuple[object, object]]:
    """Name → (before, after) of every difference in hardware, system or package versions."""
    first, second = before.machine, after.machine
    found = {name: (first.get(key), second.get(key)) for key, name in _SAME if first.get(key) != second.get(key)}
    versions = first.get("versions") or {}, second.get("versions") or {}
    for package in sorted({*versions[0], *versions[1]} - {"stageproof", "neurostage"}):
        if versions[0].get(package) != versions[1].get(package):
            found[package] = versions[0].get(package), versions[1].get(package)
    return found


def machines_differ(changed: Mapping[str, object]) -> bool:
    """Whether the runs were measured on different machines."""
    return any(what in changed for what in _MACHINE)


def is_unchanged_peer(pair: Pair, changed: Mapping[str, object]) -> bool:
    """Whether the row can be a control: a peer with the same versions and settings in both runs and enough samples."""
    row = pair[1]
    packages = (
        *_LIBRARIES.get(row.backend, ("torch", "torchvision", "onnxruntime", "openvino")),
        "numpy",
        "pillow",
        "Python",
    )
    return (
        row.kind == "peer"
        and not any(what in changed for what in packages)
        and pair[0].settings == row.settings
        and min(len(one.samples_ms) for one in pair) >= LEAST_SAMPLES
    )
