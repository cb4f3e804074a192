"""`Scorer`: scores shards in a worker, under every engine. `describe`: the bundle as a worker loads it."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import time
import warnings
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import stageproof
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.errors import BackendUnavailable
from stageproof.runtime.guard.ood_guard import Guard
from stageproof.runtime.labels import ASSUMED, order_line
from stageproof.runtime.prediction import Prediction
from stageproof.runtime.predictor import Predictor
from stageproof.runtime.text.hints import missing_guard
from stageproof.serving.archive.dicom_ids import DicomIds, dicom_ids
from stageproof.serving.archive.inputs.entry import Entry
from stageproof.serving.archive.inputs.reading import Reader, UnreadableError, changed
from stageproof.serving.archive.output import parts
from stageproof.serving.archive.output.plan import Plan
from stageproof.serving.archive.pseudonyms import keyed

SLOWEST = 5
"""Inputs of each shard whose time is reported."""


@dataclass(frozen=True)
class Job:
    """What a worker needs; pickled to it."""

    out: str
    """Absolute; at the same place on every machine, as the bundle and the inputs are."""
    bundle: str
    secret: bytes
    """Key of the digests of names."""
    backend: str | None
    precision: str | None
    device: str
    threads: int
    trust_code: bool = False
    trusted_key: str | None = None
    digest: str | None = None
    """Required digest of the bundle."""

    def load(self) -> Predictor:
        """The Predictor; its warnings are Python warnings."""
        return Predictor(
            self.bundle,
            backend=self.backend,
            precision=self.precision,
            device=self.device,
            threads=self.threads,
            optimize_for="throughput",
            trust_code=self.trust_code,
            trusted_key=self.trusted_key,
            trusted_digest=self.digest,
        )


@dataclass(frozen=True)
class Scored:
    """A shard was scored and its part written."""

    shard: int
    worker: str
    """Host and process, such as ``node7:4711``."""
    cpu: str
    rows: int
    bytes: int
    seconds: float
    statuses: dict[str, int]
    codes: dict[str, int]
    """Reasons of rejections and abstentions."""
    changed: int
    """Inputs that differ in size or modification time from the listing."""
    slowest: tuple[tuple[int, float], ...]
    """(input, milliseconds) of the slowest inputs."""


def describe(job: Job) -> dict[str, Any]:
    """The bundle, engine and software, for the manifest."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        predictor = job.load()
    model = predictor.model
    guard = None
    bundle = Path(job.bundle)
    notes = [str(one.message) for one in caught] + ([] if predictor.guarded else [missing_guard(bundle)])
    if predictor.labels_from == ASSUMED:
        notes.append(order_line(model.labels, ASSUMED))
    if predictor.guarded and (document := read_manifest(bundle).guard):
        fitted = Guard.read(bundle / document.file)
        guard = {"thresholds": dict(fitted.thresholds), "fitted": dict(fitted.fitted)}
    return {
        "bundle": {
            "digest": predictor.digest,
            "weights": model.digest,
            "architecture": model.architecture,
            "artifact": predictor.artifact.name,
            "backend": predictor.backend,
            "precision": predictor.precision,
            "classes": list(model.classes.names),
            "abstain_below": model.abstain_below,
            "guard": guard,
        },
        "software": software(predictor),
        "cpu": cpu(),
        "warnings": list(dict.fromkeys(notes)),
    }


class Scorer:
    """Scores shards of one output with one Predictor."""

    def __init__(self, job: Job) -> None:
        """Raises the errors of `Predictor`, InputError for a plan that this worker cannot continue."""
        self._plan = Plan.read(Path(job.out))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # `describe` had them, and the command showed them once
            self._predictor = job.load()
        found, expected = software(self._predictor), self._plan.data["software"]
        differing = {name for name in {*found, *expected} if found.get(name) != expected.get(name)}
        if differing:
            shown = "; ".join(f"{one} {found.get(one)} instead of {expected.get(one)}" for one in sorted(differing))
            raise BackendUnavailable(
                f"this worker ({socket.gethostname()}) has {shown}; {job.out} was begun with the latter; others "
                "may give other results. Install those versions, or start another --out."
            )
        self._schema = parts.schema(self._plan.classes, self._plan.guard_scores)
        self._input_id, self._patient_id = keyed(job.secret, "input"), keyed(job.secret, "patient")
        self._study_id, self._series_id = keyed(job.secret, "study"), keyed(job.secret, "series")
        self._folder: str = self._plan.listing.about["folder"]
        self._worker, self._cpu = f"{socket.gethostname()}:{os.getpid()}", cpu()

    def score(self, shard: int) -> Scored:
        """Score a shard and write its part. Raises ArchiveError if it cannot be written, BackendError."""
        start = time.perf_counter()
        entries = self._plan.entries(shard)
        first = self._plan.listing.first(shard)
        columns: dict[str, list[Any]] = {name: [] for name in self._schema.names}
        times: list[tuple[float, int]] = []
        contents: deque[_Content] = deque()
        with Reader(self._folder) as reader:
            stream = self._predictor.stream(_contents(reader, entries, contents))
            for number, (entry, prediction) in enumerate(zip(entries, stream, strict=True), first):
                content = contents.popleft()
                self._add(columns, number, entry, content, prediction)
                spent = prediction.timings
                times.append((spent.read_ms + spent.preprocess_ms + spent.inference_ms, number))
        differing = sum(changed(entry, self._folder) for entry in entries)
        parts.write(self._plan.part(shard), columns, self._schema, self._plan.identity(shard))
        return Scored(
            shard,
            self._worker,
            self._cpu,
            rows=len(entries),
            bytes=sum(size or 0 for size in columns["bytes"]),
            seconds=time.perf_counter() - start,
            statuses=dict(Counter(columns["status"])),
            codes=dict(Counter(code for code in columns["code"] if code)),
            changed=differing,
            slowest=tuple((number, round(ms, 3)) for ms, number in sorted(times, reverse=True)[:SLOWEST]),
        )

    def _add(
        self, columns: dict[str, list[Any]], number: int, entry: Entry, content: _Content, prediction: Prediction
    ) -> None:
        unreadable = content.error
        values: dict[str, Any] = {
            "input": number,
            "input_id": self._input_id(entry.name),
            "patient_id": self._patient_id(entry.patient or content.ids.patient),
            "study_id": self._study_id(content.ids.study),
            "series_id": self._series_id(content.ids.series),
            "sha256": content.sha256,
            "bytes": content.size,
            "status": prediction.status,
            "label": prediction.label,
            "cdr": prediction.cdr,
            "probability": prediction.probability,
            "code": "unreadable" if unreadable else prediction.code,
            "reason": unreadable or prediction.reason,
            "warnings": list(prediction.warnings),
            "transforms": list(prediction.transforms),
        }
        values |= {f"probability_{name}": prediction.probabilities.get(name) for name in self._plan.classes}
        guard = {} if isinstance(prediction.guard, str) else prediction.guard
        values |= {f"guard_{name}": guard.get(name) for name in self._plan.guard_scores}
        for name, value in values.items():
            columns[name].append(value)


@dataclass(frozen=True)
class _Content:
    """What is known of an input's bytes after they are handed to the stream."""

    sha256: str | None
    size: int | None
    ids: DicomIds
    error: str = ""


def _contents(reader: Reader, entries: list[Entry], known: deque[_Content]) -> Iterator[bytes]:
    """The bytes of the inputs for `Predictor.stream`, which reads only a few ahead. Adds to `known` for each."""
    for entry in entries:
        try:
            data = reader.read(entry)
        except UnreadableError as error:
            known.append(_Content(None, None, DicomIds(), str(error)))
            yield b""  # an unreadable image, whose reason is replaced
        else:
            known.append(_Content(hashlib.sha256(data).hexdigest(), len(data), dicom_ids(data)))
            yield data


def software(predictor: Predictor) -> dict[str, str]:
    """Versions that results or the bytes of parts may depend on."""
    found = {"stageproof": stageproof.__version__, "engine": predictor.engine}
    for name in ("numpy", "Pillow", "pyarrow", "pydicom"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def cpu() -> str:
    """Model of the processor; the last digits of probabilities may depend on it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        return next(row.partition(":")[2].strip() for row in text.splitlines() if row.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
