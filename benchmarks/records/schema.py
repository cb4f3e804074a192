"""The record of one run of `python -m benchmarks`: every raw sample, with hardware, load and settings.

A JSON object, schema 1. Times are wall-clock; `None` means not measured.

    schema          1
    commit          Git commit of the code, with a final `+` if files were modified; None outside a checkout
    started         ISO 8601, UTC
    circumstances   `benchmarks.machine.circumstances.circumstances`: cpu, cpus, mhz, load_average, memory_bytes, noise,
                    busy, others, versions
    bundle          `ModelInfo.to_dict()` of the bundle; its `digest` is that of the reference weights
    images          {count, source} of the measured images
    threads         CPU threads; rows may have another value
    floors          {precision: {gflop_s, how}}, and {"memory": {gb_s, how}}: measured peak of this machine, all threads
    work            {gflop_per_image}; a multiply-add counts as two operations
    rows            [Row]
    scaling         {images: [{images, seconds, rss_bytes}], workers: [{workers, seconds, images_per_s}]}, or None
    notes           [str]: contenders and rows that were left out, with the reason
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

SCHEMA = 1

Kind = Literal["predictor", "engine", "peer"]
Scenario = Literal["single_stream", "multi_stream", "server", "offline", "engine"]
STAGES = ("read", "guard", "preprocess", "transfer", "compute", "post")


@dataclass(frozen=True)
class Row:
    """One contender in one scenario."""

    name: str
    """Unique among the rows of its scenario and batch."""
    kind: Kind
    """predictor: bytes to `Prediction`. peer: bytes to probabilities. engine: ready tensors to logits."""
    scenario: Scenario
    backend: str
    precision: str
    batch: int
    """Images per query."""
    threads: int
    settings: str
    """Settings of the engine."""
    samples_ms: list[float]
    """Time of each query after warm-up, in milliseconds; offline: time per image of each turn; server: from arrival to
    completion. Sample i of all rows of a scenario was measured in the same round on the same images, so samples are
    paired, except in server."""
    images_per_s: float
    stable: bool
    """Whether the medians of the first, second and last third of the samples agree within 10 %."""
    stages_ms: dict[str, list[float]] | None = None
    """Stage (`STAGES`, or the peer's own) → its time in each sample, in milliseconds."""
    peak_rss_bytes: int | None = None
    """Peak resident memory of the contender's process."""
    load_s: float | None = None
    """Time for imports, loading and warm-up in the started process."""
    first_answer_s: float | None = None
    """Time from the start of the process to its first prediction."""
    file_bytes: int | None = None
    """Size of the model's files."""
    flips: dict[str, int] | None = None
    """{count, images}: number of predictions that differ from the float32 PyTorch model's, of how many images."""
    floor_ms: float | None = None
    """Minimum time of a query: its arithmetic at the machine's measured peak in this precision, all threads."""
    floor_share: float | None = None
    """`floor_ms` divided by the median sample, in [0, 1]."""
    server: dict[str, float] | None = None
    """{offered_per_s, latency_bound_ms, lost, seconds}."""
    processes: list[int] | None = None
    """Number of samples of each process, in the order of `samples_ms`; None for a single process."""


def build(rows: list[Row], **about: Any) -> dict[str, Any]:
    """The record, JSON-ready. about: the other keys of the schema."""
    return {"schema": SCHEMA, **about, "rows": [asdict(row) for row in rows]}


def write(record: dict[str, Any], path: Path) -> None:
    """Write the record atomically, with one line per top-level key and row, for readable diffs and small files."""
    lines = [f"{json.dumps(key)}: {_text(value)}" for key, value in record.items()]
    write_text("{\n" + ",\n".join(lines) + "\n}\n", path)


def write_text(text: str, path: Path) -> None:
    """Write the text atomically. Raises OSError."""
    handle, staging = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(staging).chmod(0o644)  # mkstemp creates a private file
        Path(staging).replace(path)
    except BaseException:
        Path(staging).unlink(missing_ok=True)
        raise


def _text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in value) + "\n]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
