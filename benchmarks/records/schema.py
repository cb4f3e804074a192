"""The record of one run of `python -m benchmarks`: every raw sample, and all that is needed to judge it.

A JSON object, schema 1. Times are wall-clock; `None` stands where something was not measured.

    schema          1
    commit          Git commit of the code, `+` at its end where files differ from it; None outside a checkout
    started         ISO 8601, UTC
    circumstances   `benchmarks.machine.circumstances.circumstances`: cpu, cpus, mhz, load_average, memory_bytes, noise,
    busy, others,
                    versions
    bundle          `ModelInfo.to_dict()` of the bundle; its `digest` is that of the reference weights
    images          {count, source}: what was answered
    threads         CPU threads of every row that does not say otherwise
    floors          {precision: {gflop_s, how}}, and {"memory": {gb_s, how}}: the ceilings of this machine, all threads
    work            {gflop_per_image}: a multiplication and an addition are two
    rows            [Row]
    scaling         {images: [{images, seconds, rss_bytes}], workers: [{workers, seconds, images_per_s}]}, or None
    notes           [str]: what was left out, and why
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
    """Images in one question."""
    threads: int
    settings: str
    """The documented settings it ran with."""
    samples_ms: list[float]
    """Milliseconds of one question, after warming up; offline: milliseconds an image of each turn; server: from the
    moment a question was due to its answer. Sample i of all rows of a scenario was taken in the same round, on the same
    images, so they are paired; those of server are not."""
    images_per_s: float
    stable: bool
    """The medians of the first, second and last third of the samples agree within 10 %."""
    stages_ms: dict[str, list[float]] | None = None
    """By name in `STAGES`, or those a peer has: the samples of questions asked once more with a clock at each stage."""
    peak_rss_bytes: int | None = None
    """Of the process of its own that it ran in."""
    load_s: float | None = None
    """From a process that has started to one that can answer: imports, loading, warming up."""
    first_answer_s: float | None = None
    """From the start of that process to its first answer."""
    file_bytes: int | None = None
    """Of the model's files."""
    flips: dict[str, int] | None = None
    """{count, images}: decisions that differ from the eager float32 model's on the same images."""
    floor_ms: float | None = None
    """The question's arithmetic at the machine's measured rate in this precision, all threads."""
    floor_share: float | None = None
    """`floor_ms` over the median sample, in [0, 1]."""
    server: dict[str, float] | None = None
    """{offered_per_s, latency_bound_ms, lost, seconds}."""
    processes: list[int] | None = None
    """Samples of each process, in the order of `samples_ms`; None: all are of one process."""


def build(rows: list[Row], **about: Any) -> dict[str, Any]:
    """The JSON-ready record. about: the other keys of the schema."""
    return {"schema": SCHEMA, **about, "rows": [asdict(row) for row in rows]}


def write(record: dict[str, Any], path: Path) -> None:
    """Write it whole or not at all, a line for each top-level key and row: diffs stay readable and files small."""
    lines = [f"{json.dumps(key)}: {_text(value)}" for key, value in record.items()]
    write_text("{\n" + ",\n".join(lines) + "\n}\n", path)


def write_text(text: str, path: Path) -> None:
    """Write it whole or not at all. OSError passes to the caller."""
    handle, staging = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(staging).chmod(0o644)  # mkstemp makes it private
        Path(staging).replace(path)
    except BaseException:
        Path(staging).unlink(missing_ok=True)
        raise


def _text(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in value) + "\n]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
