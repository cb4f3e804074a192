"""From reference to bundle: build each format, measure it in every backend here, keep what holds."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from export.bundle import adopt, staged
from export.formats import format_module
from export.images import parity_samples, preprocessed
from export.options import Options
from export.parity import compare, run_in_batches
from export.reference import Reference, from_checkpoint, from_run
from runtime import __version__, backends
from runtime.backends import Backend
from runtime.errors import BackendUnavailable, ParityError
from runtime.labels import ALPHABETICAL
from runtime.manifest import FILE, Artifact, Check, Manifest, sha256_file
from runtime.threads import available_cpus
from train.checkpoint import newest_run


@dataclass(frozen=True)
class Exported:
    """What one export gave."""

    bundle: Path
    manifest: Manifest
    new: tuple[Artifact, ...]
    """The artifacts this export built."""
    unchecked: tuple[str, ...]
    """Backends that could not be asked because their engine is not installed here."""


@dataclass(frozen=True)
class Evidence:
    """The images that every artifact of one export is measured on, and what the reference says of them."""

    reference: Reference
    images: np.ndarray
    """(N, C, H, W) float32."""
    logits: np.ndarray
    """(N, classes) float32, eager float32 on the CPU."""
    source: str
    threads: int


def export(options: Options) -> Exported:
    """Build, check and bundle. Raises ParityError, and changes nothing, when an artifact does not hold."""
    modules = [format_module(name) for name in dict.fromkeys(options.to)]
    reference = load_reference(options)
    samples = parity_samples(reference.run)
    images = preprocessed(samples, reference.info.input)
    threads = options.threads or available_cpus()
    evidence = Evidence(reference, images, reference.logits(images), samples.source, threads)
    unchecked: list[str] = []
    with staged(options.out) as folder:
        kept = adopt(options.out, reference.info.digest, folder, {module.FILE for module in modules})
        new = tuple(_artifact(module, folder, evidence, unchecked) for module in modules)
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        provenance = {**reference.provenance, "neurostage": __version__, "exported": created}
        manifest = Manifest(reference.info, (*kept, *new), provenance)
        (folder / FILE).write_text(manifest.to_json(), encoding="utf-8")
    return Exported(options.out, manifest, new, tuple(unchecked))


def load_reference(options: Options) -> Reference:
    """The run or checkpoint that the options name, or the newest run."""
    source = options.source or newest_run()
    if source.is_dir():
        return from_run(source)
    return from_checkpoint(source, options.architecture, options.image_size, options.labels or ALPHABETICAL)


def _artifact(module: ModuleType, folder: Path, evidence: Evidence, unchecked: list[str]) -> Artifact:
    """The artifact built into `folder`, with a Check for every backend here that runs it."""
    path, precision = folder / module.FILE, module.PRECISIONS[0]
    module.build(evidence.reference, path)
    checks = []
    for name, backend in backends.BACKENDS.items():
        if module.NAME not in backend.FORMATS:
            continue
        if reason := backends.missing(name):
            unchecked.append(f"{module.FILE} was not checked in {name!r}, which {reason}")
            continue
        loaded = backends.load(name, path, precision=precision, device="cpu", threads=evidence.threads)
        checks.append(_check(name, loaded, f"{module.FILE} in {loaded.engine}", precision, evidence))
    if not checks:
        raise BackendUnavailable(
            f"{module.FILE} was not added, since nothing here can check it. {'. '.join(unchecked)}."
        )
    return Artifact(module.NAME, precision, module.FILE, sha256_file(path), path.stat().st_size, tuple(checks))


def _check(name: str, loaded: Backend, what: str, precision: str, evidence: Evidence) -> Check:
    info = evidence.reference.info
    parity = compare(
        evidence.logits,
        run_in_batches(loaded, evidence.images),
        info.labels,
        precision=precision,
        temperature=info.temperature,
        source=evidence.source,
    )
    if not parity.holds:
        raise ParityError(f"{what} {parity}. Nothing was added to the bundle.")
    machine = f"{_cpu()}, {evidence.threads} threads"
    return Check(name, loaded.engine, parity.to_dict(), _latency_ms(loaded, evidence.images), machine)


def _latency_ms(backend: Backend, images: np.ndarray, runs: int = 20) -> float:
    """Median milliseconds of one image, engine only, after warming up; enough to rank backends, not to publish."""
    times = []
    for run in range(runs + 3):
        image = images[run % len(images)][None]
        start = time.perf_counter()
        backend.run(image)
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:]) * 1e3


def _cpu() -> str:
    """The CPU's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
