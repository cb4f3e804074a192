"""Runs the inference benchmarks: starts the workers, runs the scenarios, and returns the record."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stageproof.benchmarks.compare.statistics import ASSUMED_SPREAD, detectable
from stageproof.benchmarks.compare.verdicts import MARGIN
from stageproof.benchmarks.contenders.selection import optimised_for, predictors, select, start
from stageproof.benchmarks.contenders.worker import Worker
from stageproof.benchmarks.inference.images import images_for
from stageproof.benchmarks.inference.rows import Facts, pooled
from stageproof.benchmarks.inference.scaling import scaling
from stageproof.benchmarks.inference.scenario_rows import rows_of
from stageproof.benchmarks.machine.ceilings import floors, gflop_per_image
from stageproof.benchmarks.machine.circumstances import circumstances, commit
from stageproof.benchmarks.options import Options
from stageproof.benchmarks.peers import peers
from stageproof.benchmarks.peers.context import PeerContext
from stageproof.benchmarks.peers.eager import SNIPPET
from stageproof.benchmarks.records.schema import Row, build
from stageproof.export.data.calibration import calibration_samples
from stageproof.export.engines.child_process import run_in_child_process
from stageproof.export.reference.graph_source import ONNX, TORCHSCRIPT
from stageproof.export.reference.model import source_of
from stageproof.runtime.bundle.manifest import Manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import CheckpointError, DatasetError, InputError
from stageproof.runtime.labels import ASSUMED, order_line
from stageproof.runtime.system.cpus import available_cpus
from stageproof.runtime.system.work_folders import work_folder
from stageproof.train.runs.finding import described
from stageproof.train.runs.record import read_record
from stageproof.train.terminal.bars import bar

logger = logging.getLogger(__name__)

_ONCE = ("server", "scaling")
"""Scenarios that run in the last process only, since they take minutes."""


def run(options: Options) -> dict[str, Any]:
    """The record (`benchmarks.records.schema`) of the requested scenarios.

    Raises BundleError for a bundle that cannot be used or has no artifact that runs here, InputError or DatasetError
    for unusable images.
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = verified(options.bundle)  # verified here, since peers open its files without a check
    if manifest.labels_from == ASSUMED:
        logger.info(order_line(manifest.model.labels, ASSUMED))
    notes: list[str] = []
    source = _run_of(options, manifest, notes)
    threads = options.threads or available_cpus()
    slow_peers = options.slow_peers or "all" in options.scenario
    images, where = images_for(manifest, options.bundle, source, options.data, options.images)
    contenders = predictors(options, manifest, threads, notes)
    with _folder(options.work) as work:
        if options.peers:
            context = PeerContext(
                options.bundle,
                manifest,
                source,
                threads,
                options.device,
                work,
                slow_peers=slow_peers,
                calibration=_calibration(source) if slow_peers else (),
            )
            others, left_out = peers(context)
            contenders += others
            notes += left_out
        contenders = select(contenders, options.only)
        logger.info("recording hardware, load and versions")
        about = circumstances()
        ceilings: dict[str, Any] = {}
        if not options.quick:
            ceilings = run_in_child_process(floors, (threads, options.device), work / "floors.log")
        if manifest.model.architecture in (ONNX, TORCHSCRIPT):
            work_done = None
            notes.append("no share of peak: the bundle was made from a graph file, whose operations are not counted")
        else:
            work_done = gflop_per_image(manifest.model.network, manifest.model.input.shape)
        logger.info(power(options, len(contenders)))
        facts: Facts | None = None
        batches: dict[str, int] = {}
        by_process = []
        for number in range(1, options.processes + 1):
            last = number == options.processes
            with ExitStack() as stack:
                # Contenders that fail to load are noted for the first process only.
                workers = start(contenders, images, work, stack, notes if number == 1 else [])
                facts = facts or _facts(workers, ceilings, work_done, threads)
                selected = tuple(one for one in options.scenarios if last or one not in _ONCE)
                by_process.append(rows_of(options, selected, workers, images, facts, work, batches))
                streaming = optimised_for(workers[0].contender, "throughput")
                cost = scaling(streaming, images, work) if last and "scaling" in selected else None
        rows = pooled(by_process, notes)
    after = circumstances()
    about |= {"busy": about["busy"] or after["busy"], "noise_after": after["noise"], "others_after": after["others"]}
    notes += unstable(rows)
    return build(
        rows,
        commit=commit(),
        started=started,
        circumstances=about,
        bundle=manifest.model.to_dict(),
        images={"count": len(images), "source": where},
        threads=threads,
        floors=ceilings,
        work={} if work_done is None else {"gflop_per_image": work_done},
        scaling=cost,
        notes=notes,
    )


def power(options: Options, rows: int) -> str:
    """A sentence with the change that two such runs detect with 80 % power, for typical spreads between processes."""
    if options.processes == 1:
        found = detectable(1, options.per_process, rows, MARGIN, ASSUMED_SPREAD)
        return (
            f"Two runs like this one detect a change of {found:.1%} with 80 % power (one process each: the spread "
            f"between processes is assumed to be {ASSUMED_SPREAD:.0%}; --processes 5 measures it)."
        )
    found, worse = (
        detectable(options.processes, options.per_process, rows, MARGIN, spread) for spread in (0.005, ASSUMED_SPREAD)
    )
    return (
        f"Two runs like this one ({options.processes} processes of {options.per_process} samples) detect a change of "
        f"{found:.1%} with 80 % power if processes differ by 0.5 %, of {worse:.1%} if they differ by "
        f"{ASSUMED_SPREAD:.0%}."
    )


def unstable(rows: Sequence[Row]) -> list[str]:
    """At most one sentence: which row is not stable, or how many are, in 80 columns; the page marks each."""
    found = [f"{one.name} in {one.scenario}" for one in rows if not one.stable]
    if len(found) > 1:
        return [f"{len(found)} of {len(rows)} rows are not stable: medians of their thirds differ by more than 10 %."]
    why = "the medians of the first, second and last third of its samples differ by more than 10 %"
    return [f"{name} is not stable: {why}" for name in found]


def _facts(workers: Sequence[Worker], ceilings: dict[str, Any], gflop: float | None, threads: int) -> Facts:
    """Facts shared by all rows: peak performance and changed predictions, computed once."""
    logger.info("counting predictions that differ from the float32 PyTorch model's")
    predicted_classes = {}
    with bar("predictions of all images", len(workers)) as advance:
        for worker in workers:
            if worker.contender.comparable:
                predicted_classes[worker.contender.name] = worker.request("predicted_classes")
            advance()
    expected = predicted_classes.get(SNIPPET)
    flips = {}
    for name, predicted in predicted_classes.items() if expected else ():
        count = sum(one != other for one, other in zip(predicted, expected or (), strict=True))
        flips[name] = {"count": count, "images": len(predicted)}
    return Facts(
        {precision: entry["gflop_s"] for precision, entry in ceilings.items() if "gflop_s" in entry},
        gflop,
        flips,
        threads,
    )


def _calibration(source: Path | None) -> tuple[bytes, ...]:
    """Encoded training slices of the run; empty if they are not available."""
    try:
        samples, _ = calibration_samples(source, None)
    except DatasetError:
        return ()
    return tuple(samples.read(index) for index in range(len(samples)))


def _run_of(options: Options, manifest: Manifest, notes: list[str]) -> Path | None:
    """The run that the bundle was made from; None if it is not found. Logs its description."""
    try:
        source = source_of(options.bundle, options.run)
    except CheckpointError as error:
        notes.append(f"Peers in PyTorch were not measured: {error}")
        return None
    record = read_record(source)
    if options.run is None:
        logger.info(described(source, record))
    if record["weights_sha256"] != manifest.model.digest:
        raise InputError(f"{source} has other weights than {options.bundle} was made from. Give the run it came from.")
    return source


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Yields the folder for compiled files of peers: `kept`, or a temporary one that is deleted afterwards."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with work_folder() as folder:
        yield folder
