"""Latency of one image through the Predictor, in every backend that can serve the bundle, and through its peers."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.measure import Contender, Measured, circumstances, measure
from benchmarks.options import Options
from benchmarks.peers import published_snippet
from benchmarks.report import record
from export.reference import Reference, from_run
from runtime import backends
from runtime.errors import BundleError
from runtime.manifest import Manifest, read_manifest
from runtime.predictor import Predictor
from runtime.threads import available_cpus
from train.checkpoint import RUNS, read_record
from train.data.phantom import phantom_samples

SNIPPET = "published snippet (eager PyTorch)"


def latency(options: Options) -> tuple[list[Measured], Measured | None, list[str]]:
    """What was measured, the published snippet among it if its weights were found, and notes on what is missing.

    Raises BundleError for a bundle that cannot be used, BundleError when nothing can be measured.
    """
    manifest = read_manifest(options.bundle)
    threads = options.threads or available_cpus()
    contenders: dict[str, Contender] = {}
    notes = []
    for artifact in manifest.artifacts:
        for check in artifact.checks:
            name = f"Predictor, {check.backend} {artifact.precision}"
            if reason := backends.missing(check.backend):
                notes.append(f"{name} was not measured: it {reason}")
                continue
            predictor = Predictor(options.bundle, backend=check.backend, precision=artifact.precision, threads=threads)
            contenders[name] = predictor.predict
    if not contenders:
        raise BundleError(f"Nothing in {options.bundle} can be measured here. {' '.join(notes)}")
    reference = _reference(options.run, manifest)
    if reference is None:
        notes.append("The published snippet was not measured: runs/ does not hold the bundle's run. Name it: --run.")
    else:
        contenders[SNIPPET] = published_snippet(reference, threads)
    measured = measure(contenders, jpegs(), options.rounds)
    baseline = next((entry for entry in measured if entry.name == SNIPPET), None)
    if options.out:
        about = {"bundle": manifest.model.to_dict(), "rounds": options.rounds, "threads": threads}
        text = json.dumps(record(measured, circumstances(), about), indent=1)
        options.out.write_text(text + "\n", encoding="utf-8")
    return measured, baseline, notes


def jpegs(count: int = 64) -> list[bytes]:
    """Different phantom slices as the bytes of grey 128 × 128 JPEG files, the form the public datasets come in."""
    import io

    from PIL import Image

    samples = phantom_samples(patients=count // 16, slices=4, seed=4242)
    files = []
    for index in range(len(samples)):
        file = io.BytesIO()
        Image.open(io.BytesIO(samples.read(index))).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    return files


def _reference(run: Path | None, manifest: Manifest) -> Reference | None:
    """The eager model the bundle was made from: the run named, or the one in runs/ with the bundle's weights."""
    if run is not None:
        return from_run(run)
    for folder in sorted(RUNS.glob("*/")):
        if (folder / "run.json").is_file() and read_record(folder)["weights_sha256"] == manifest.model.digest:
            return from_run(folder)
    return None
