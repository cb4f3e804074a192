"""Selects the contenders, one for each artifact of the bundle that runs here, and starts their processes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from stageproof.benchmarks.contenders.worker import Contender, Worker
from stageproof.benchmarks.options import Options
from stageproof.runtime import backends
from stageproof.runtime.artifacts.verified_bytes import CODE
from stageproof.runtime.bundle.manifest import TENSOR, Manifest
from stageproof.runtime.errors import BackendError, BundleError, InputError
from stageproof.runtime.inference.engine_settings import EngineSettings, OptimizeFor
from stageproof.train.terminal.bars import bar

logger = logging.getLogger(__name__)


def predictors(options: Options, manifest: Manifest, threads: int, notes: list[str]) -> list[Contender]:
    """One contender for each backend and precision of the bundle, optimised for latency; the Predictor's default first.

    notes: gains a sentence for each artifact that cannot be measured. Raises BundleError if none can.
    """
    found: dict[str, Contender] = {}
    pairs = [(one, check) for one in manifest.artifacts if one.takes == TENSOR for check in one.checks]
    for artifact, check in sorted(pairs, key=lambda pair: pair[1].latency_ms):
        name = f"Predictor, {check.backend} {artifact.precision}"
        reason = backends.missing(check.backend) or backends.unsupported_device(check.backend, options.device)
        if reason:
            notes.append(f"{name} was not measured: it {reason}.")
            continue
        if artifact.format in CODE and not options.trust_code:
            notes.append(f"{name} was not measured: {artifact.file} contains code. To load it: --trust-code")
            continue
        arguments = {
            "bundle": options.bundle,
            "backend": check.backend,
            "precision": artifact.precision,
            "device": options.device,
            "threads": threads,
            "trust_code": options.trust_code,
        }
        guard = "on" if manifest.guard else "not in the bundle"
        batch = EngineSettings(device=options.device).batch_size(manifest.model.input.shape)
        contender = Contender(
            name,
            "predictor",
            check.backend,
            artifact.precision,
            threads,
            f"{check.backend} as the runtime loads it, guard {guard}",
            "stageproof.benchmarks.contenders.predictor",
            arguments,
            batches=(batch,),  # the size that a stream has unless its caller gives another
        )
        found[name] = optimised_for(contender, "latency")
    if not found:
        raise BundleError(f"Nothing in {options.bundle} can be measured here. {' '.join(notes)}")
    return list(found.values())


def optimised_for(contender: Contender, mode: OptimizeFor) -> Contender:
    """The Predictor's contender with an engine loaded in this mode, which its settings name."""
    settings = f"{contender.settings.partition(', optimised for')[0]}, optimised for {mode}"
    return replace(contender, settings=settings, arguments={**contender.arguments, "optimize_for": mode})


def select(contenders: list[Contender], parts: Sequence[str]) -> list[Contender]:
    """The contenders whose name contains one of `parts`; all if `parts` is empty. Raises InputError if no Predictor
    remains."""
    chosen = [one for one in contenders if not parts or any(part.casefold() in one.name.casefold() for part in parts)]
    if not any(one.kind == "predictor" for one in chosen):
        names = "; ".join(one.name for one in contenders)
        raise InputError(f"--only {' '.join(parts)} selects no Predictor. Available: {names}.")
    return chosen


def start(
    contenders: Sequence[Contender], images: Sequence[bytes], work: Path, stack: ExitStack, notes: list[str]
) -> list[Worker]:
    """One started process for each contender. They are started one after another, so that load times are undisturbed.

    notes: gains a sentence for each peer that fails to load. Raises BackendError if a Predictor does.
    """
    workers = []
    with bar("loading", len(contenders)) as advance:
        for number, contender in enumerate(contenders):
            logger.info(f"loading {contender.name}")
            try:
                workers.append(stack.enter_context(Worker(contender, images, work / f"{number}.log")))
            except BackendError as error:
                if contender.kind == "predictor":
                    raise
                notes.append(f"{contender.name} was not measured. {error}")
            advance()
    return workers
