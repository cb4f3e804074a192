"""Checks of bundle, run, images and device before any engine is loaded, so that invalid input fails within a second."""

from __future__ import annotations

import logging

from stageproof.benchmarks.options import Options
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import BackendUnavailable, BundleError, DatasetError, InputError
from stageproof.runtime.text.hints import command, nearest_path
from stageproof.train.runs.finding import chosen

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "torchvision", "safetensors", "scipy")
"""Packages of the extra `benchmarks` that a measurement imports."""


def check(options: Options) -> None:
    """Raise the StageproofError for invalid input that would otherwise end the measurement later.

    Logs the bundle, and the run, if it was given.
    """
    require("benchmarks", *PACKAGES)
    if not options.bundle.exists():
        near = nearest_path(options.bundle) or f" Make one with: {command('export', '--out', options.bundle)}"
        raise BundleError(f"There is no bundle at {options.bundle}.{near}")
    manifest = read_manifest(options.bundle)
    facts = manifest.provenance
    origin = f"run {facts['run']}" if "run" in facts else f"checkpoint {facts.get('checkpoint', 'unknown')}"
    logger.info(
        f"bundle {options.bundle}: {manifest.model.architecture}, of {origin}, exported {facts.get('exported')}"
    )
    if options.run is not None:
        chosen(options.run)
    if options.data is not None and not options.data.exists():
        raise DatasetError(f"--data {options.data} does not exist.{nearest_path(options.data)}")
    if options.work is not None and options.work.exists() and not options.work.is_dir():
        raise InputError(f"--work {options.work} is not a folder.")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise BackendUnavailable(
                f"--device cuda: torch {torch.__version__} finds no CUDA device, and peers and peak performance are "
                "measured with torch. Use --device cpu."
            )
