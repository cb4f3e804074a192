"""One run of the suite: workers are started, asked in turn, and what they say becomes a record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import scenarios
from benchmarks.compare import MARGIN
from benchmarks.compare_statistics import ASSUMED_SPREAD, detectable
from benchmarks.floors import floors, gflop_per_image
from benchmarks.images import images_for
from benchmarks.machine import circumstances, commit
from benchmarks.options import Options
from benchmarks.peers import peers
from benchmarks.peers.eager import SNIPPET
from benchmarks.peers.given import Given
from benchmarks.record import Row, build
from benchmarks.rows import Facts, pooled, row
from benchmarks.scaling import scaling
from benchmarks.worker import Contender, Worker
from export.calibration import calibration_samples
from export.processes import in_own_process
from export.reference import source_of
from runtime import backends
from runtime.errors import BackendError, BundleError, CheckpointError, DatasetError, InputError
from runtime.integrity import verified
from runtime.labels import ASSUMED, order_line
from runtime.manifest import TENSOR, Manifest
from runtime.model_file import CODE
from runtime.threads import available_cpus
from runtime.work_folders import work_folder
from train.record import read_record
from train.runs import described

Say = Callable[[str], None]
_ONCE = ("server", "scaling")
"""Scenarios that run in the last process only: they take minutes."""


def run(options: Options, say: Say) -> dict[str, Any]:
    """The record (`benchmarks.record`) of the scenarios asked for.

    Raises BundleError for a bundle that cannot be used or of which nothing can be measured, InputError or DatasetError
    for images that would measure nothing.
    """
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = verified(options.bundle)  # peers open its files too
    if manifest.labels_from == ASSUMED:
        say(order_line(manifest.model.labels, ASSUMED))
    notes: list[str] = []
    source = _run_of(options, manifest, notes, say)
    threads = options.threads or available_cpus()
    patient = options.patient or "all" in options.scenario
    images, where = images_for(manifest, options.bundle, source, options.data, options.images)
    contenders = _predictors(options, manifest, threads, notes)
    with _folder(options.work) as work:
        if options.peers:
            given = Given(
                options.bundle,
                manifest,
                source,
                threads,
                options.device,
                work,
                patient=patient,
                calibration=_calibration(source) if patient else (),
            )
            others, left_out = peers(given)
            contenders += others
            notes += left_out
        contenders = _only(contenders, options.only)
        say("looking at the machine")
        about = circumstances()
        ceilings: dict[str, Any] = {}
        if not options.quick:
            ceilings = in_own_process(floors, (threads, options.device), work / "floors.log", say)
        work_done = gflop_per_image(manifest.model.architecture, manifest.model.input.shape)
        say(power(options, len(contenders)))
        facts: Facts | None = None
        batches: dict[str, int] = {}
        by_process = []
        for number in range(1, options.processes + 1):
            last = number == options.processes
            with ExitStack() as stack:
                # What did not load the first time is noted once.
                workers = _start(contenders, images, work, stack, notes if number == 1 else [], say)
                facts = facts or _facts(workers, ceilings, work_done, threads, say)
                asked = tuple(one for one in options.scenarios if last or one not in _ONCE)
                by_process.append(_rows(options, asked, workers, images, facts, work, batches, say))
                cost = scaling(workers[0].contender, images, work, say) if last and "scaling" in asked else None
        rows = pooled(by_process, notes)
    after = circumstances()
    about |= {"busy": about["busy"] or after["busy"], "noise_after": after["noise"], "others_after": after["others"]}
    notes += [f"{one.name} in {one.scenario} did not settle: its thirds differ" for one in rows if not one.stable]
    return build(
        rows,
        commit=commit(),
        started=started,
        circumstances=about,
        bundle=manifest.model.to_dict(),
        images={"count": len(images), "source": where},
        threads=threads,
        floors=ceilings,
        work={"gflop_per_image": work_done},
        scaling=cost,
        notes=notes,
    )


def power(options: Options, rows: int) -> str:
    """What change two such runs would show with a probability of 80 %, at spreads between processes that are usual."""
    if options.processes == 1:
        found = detectable(1, options.per_process, rows, MARGIN, ASSUMED_SPREAD)
        return (
            f"Two runs like this one show a change of {found:.1%} with a probability of 80 % (one process each: their "
            f"spread is assumed to be {ASSUMED_SPREAD:.0%}); --processes 5 measures it."
        )
    found, worse = (
        detectable(options.processes, options.per_process, rows, MARGIN, spread) for spread in (0.005, ASSUMED_SPREAD)
    )
    return (
        f"Two runs like this one ({options.processes} processes of {options.per_process} samples) show a change of "
        f"{found:.1%} with a probability of 80 % where processes differ by 0.5 %, of {worse:.1%} where they differ by "
        f"{ASSUMED_SPREAD:.0%}."
    )


def _rows(
    options: Options,
    asked: Sequence[str],
    workers: Sequence[Worker],
    images: Sequence[bytes],
    facts: Facts,
    work: Path,
    batches: dict[str, int],
    say: Say,
) -> list[Row]:
    """The rows of one process of each contender. batches: sizes chosen in an earlier process, filled by the first."""
    ours = [worker for worker in workers if worker.contender.kind == "predictor"]
    rows: list[Row] = []
    if "single_stream" in asked:
        taken = scenarios.single_stream(workers, options.per_process, say)
        rows += [row(worker, "single_stream", 1, taken, facts) for worker in workers]
    if "multi_stream" in asked:
        taken = scenarios.multi_stream(workers, max(10, options.per_process // 4), say)
        rows += [row(worker, "multi_stream", scenarios.QUESTION, taken, facts) for worker in workers]
    if "offline" in asked:
        for worker in () if options.quick else ours:
            worker.ask("throughput", scenarios.LONG, scenarios.QUESTION)
        if not batches:
            batches.update(scenarios.best_batches(workers, 16 if options.quick else scenarios.TRIED))
        count = len(images) if options.quick else max(len(images), scenarios.OFFLINE)
        taken = scenarios.offline(workers, batches, count, 3 if options.counted < 60 else 5, say)
        rows += [row(worker, "offline", batches[worker.contender.name], taken, facts) for worker in workers]
    if "engine" in asked:
        for batch in (1, 8, 32):
            samples = max(12, options.per_process // batch)
            taken = scenarios.engine(ours, batch, samples, say)
            rows += [row(worker, "engine", batch, taken, facts) for worker in ours]
        rows += _one_thread(ours, images, facts, work, options.per_process, say)
    if "server" in asked:
        rows.append(_server(options, ours, images, facts, say))
    return rows


def _one_thread(
    ours: Sequence[Worker], images: Sequence[bytes], facts: Facts, work: Path, samples: int, say: Say
) -> list[Row]:
    """The engines alone on one CPU thread, each row named so."""
    if facts.threads == 1:
        return []
    with ExitStack() as stack:
        single = [
            replace(
                worker.contender,
                name=f"{worker.contender.name}, 1 thread",
                threads=1,
                arguments={**worker.contender.arguments, "threads": 1},
            )
            for worker in ours
        ]
        workers = _start(single, images, work, stack, [], say)
        taken = scenarios.engine(workers, 1, max(12, samples // 2), say)
        return [row(worker, "engine", 1, taken, replace(facts, of={})) for worker in workers]


def _server(options: Options, ours: Sequence[Worker], images: Sequence[bytes], facts: Facts, say: Say) -> Row:
    """The artifact that serves by default, at a share of the throughput that it has just shown."""
    taken = scenarios.single_stream(ours, 40, say)
    fastest = min(ours, key=lambda worker: float(np.median(taken[worker.contender.name].milliseconds)))
    name = fastest.contender.name
    single = float(np.median(taken[name].milliseconds))
    fastest.ask("throughput", scenarios.LONG, scenarios.QUESTION)
    batch = scenarios.best_batches([fastest], scenarios.TRIED)
    alone = scenarios.offline([fastest], batch, max(len(images), scenarios.OFFLINE), 5, say)[name]
    rate = options.server_load * 1e3 / float(np.median(alone.milliseconds))
    say(f"server: {options.server_seconds} s at {rate:.1f} images/s, {options.server_load:.0%} of {name} offline")
    served = fastest.ask("call", "serve", rate, options.server_seconds, scenarios.QUESTION)
    latencies = scenarios.Taken(served["latencies_ms"])
    found = row(fastest, "server", scenarios.QUESTION, {name: latencies}, facts)
    return replace(
        found,
        images_per_s=len(latencies.milliseconds) / served["seconds"],
        floor_ms=None,
        floor_share=None,
        settings=f"{found.settings}; at most {scenarios.QUESTION} waiting images in one batch",
        server={
            "offered_per_s": rate,
            "offline_share": options.server_load,
            "single_ms": single,
            "latency_bound_ms": 4 * single,
            "lost": served["lost"],
            "seconds": served["seconds"],
        },
    )


def _predictors(options: Options, manifest: Manifest, threads: int, notes: list[str]) -> list[Contender]:
    """One for each backend and precision of the bundle, what would serve by itself first."""
    found: dict[str, Contender] = {}
    pairs = [(one, check) for one in manifest.artifacts if one.takes == TENSOR for check in one.checks]
    for artifact, check in sorted(pairs, key=lambda pair: pair[1].latency_ms):
        name = f"Predictor, {check.backend} {artifact.precision}"
        reason = backends.missing(check.backend) or backends.elsewhere(check.backend, options.device)
        if reason:
            notes.append(f"{name} was not measured: it {reason}.")
            continue
        if artifact.format in CODE and not options.trust_code:
            notes.append(f"{name} was not measured: {artifact.file} carries code. --trust-code loads it.")
            continue
        arguments = {
            "bundle": options.bundle,
            "backend": check.backend,
            "precision": artifact.precision,
            "device": options.device,
            "threads": threads,
            "trust_code": options.trust_code,
        }
        settings = f"{check.backend} as the runtime loads it, guard {'on' if manifest.guard else 'not in the bundle'}"
        found[name] = Contender(
            name,
            "predictor",
            check.backend,
            artifact.precision,
            threads,
            settings,
            "benchmarks.ours",
            arguments,
            batches=(4, 8, 16, 32),
        )
    if not found:
        raise BundleError(f"Nothing in {options.bundle} can be measured here. {' '.join(notes)}")
    return list(found.values())


def _only(contenders: list[Contender], parts: Sequence[str]) -> list[Contender]:
    """Those whose name holds one of `parts`; all of them where there are none."""
    chosen = [one for one in contenders if not parts or any(part.casefold() in one.name.casefold() for part in parts)]
    if not any(one.kind == "predictor" for one in chosen):
        names = "; ".join(one.name for one in contenders)
        raise InputError(f"--only {' '.join(parts)} leaves no Predictor to measure. There are: {names}.")
    return chosen


def _start(
    contenders: Sequence[Contender], images: Sequence[bytes], work: Path, stack: ExitStack, notes: list[str], say: Say
) -> list[Worker]:
    """One process for each contender, one after another, so that loading is timed alone."""
    workers = []
    for number, contender in enumerate(contenders):
        say(f"loading {contender.name}")
        try:
            workers.append(stack.enter_context(Worker(contender, images, work / f"{number}.log")))
        except BackendError as error:
            if contender.kind == "predictor":
                raise
            notes.append(f"{contender.name} was not measured. {error}")
    return workers


def _facts(workers: Sequence[Worker], ceilings: dict[str, Any], gflop: float, threads: int, say: Say) -> Facts:
    """What the rows of one contender share, asked once."""
    say("counting decisions that differ from the eager float32 model's")
    decisions = {worker.contender.name: worker.ask("decisions") for worker in workers if worker.contender.decides}
    expected = decisions.get(SNIPPET)
    flips = {}
    for name, decided in decisions.items() if expected else ():
        count = sum(one != other for one, other in zip(decided, expected or (), strict=True))
        flips[name] = {"count": count, "images": len(decided)}
    return Facts(
        {precision: entry["gflop_s"] for precision, entry in ceilings.items() if "gflop_s" in entry},
        gflop,
        flips,
        threads,
    )


def _calibration(source: Path | None) -> tuple[bytes, ...]:
    """Training slices of the run, as far as they are at hand."""
    try:
        samples, _ = calibration_samples(source, None)
    except DatasetError:
        return ()
    return tuple(samples.read(index) for index in range(len(samples)))


def _run_of(options: Options, manifest: Manifest, notes: list[str], say: Say) -> Path | None:
    """The run that the bundle was made from, where it is found; `say` takes which it is."""
    try:
        source = source_of(options.bundle, options.run)
    except CheckpointError as error:
        notes.append(f"Peers in PyTorch were not measured: {error}")
        return None
    record = read_record(source)
    if options.run is None:
        say(described(source, record))
    if record["weights_sha256"] != manifest.model.digest:
        raise InputError(
            f"{source} holds other weights than {options.bundle} was made from. Give the run it came from."
        )
    return source


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Where peers keep what they compile: `kept`, or a folder that is gone afterwards."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
        return
    with work_folder() as folder:
        yield folder
