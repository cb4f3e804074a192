"""`score`: plan or continue an output, and have an engine score what has no valid part yet."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import BundleError, InputError
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.system.cpus import available_cpus
from stageproof.serving.archive.engines import Engine, Lost, Workers, engine
from stageproof.serving.archive.errors import ArchiveError
from stageproof.serving.archive.inputs import listing
from stageproof.serving.archive.inputs.entry import Skipped
from stageproof.serving.archive.output import listing_file
from stageproof.serving.archive.output.files import sweep
from stageproof.serving.archive.output.lock import locked
from stageproof.serving.archive.output.plan import FILE, Plan, listing_path, make_folders, private
from stageproof.serving.archive.progress import Log, Progress
from stageproof.serving.archive.pseudonyms import fingerprint, make_key, read_key
from stageproof.serving.archive.verification import faults
from stageproof.serving.archive.worker import Job, describe

logger = logging.getLogger(__name__)

SHARD_IMAGES, SHARD_BYTES = 2000, 256 << 20


@dataclass(frozen=True)
class Request:
    """What the command asks for."""

    bundle: Path
    inputs: Sequence[str]
    """Values of --in; empty: those that the output was begun with."""
    out: Path
    engine: str = "local"
    address: str | None = None
    workers: int | None = None
    threads: int | None = None
    """Of each worker; None: the CPUs divided by the workers, or those that the output was begun with."""
    shard_images: int | None = None
    """Most inputs of a shard; None: 2000, or those that the output was begun with. `shard_bytes`: 256 MiB."""
    shard_bytes: int | None = None
    key: Path | None = None
    backend: str | None = None
    precision: str | None = None
    device: str = "cpu"
    trust_code: bool = False
    trusted_key: Path | None = None
    trusted_digest: str | None = None


@dataclass(frozen=True)
class Summary:
    """The result of a run."""

    plan: Plan
    scored: int
    """Inputs scored in this run."""
    kept: int
    """Inputs whose parts were there before."""
    statuses: Counter[str]
    """Of the inputs scored in this run."""
    left_out: tuple[int, ...]
    """Shards without a part."""


def score(request: Request) -> Summary:
    """Score an archive, or continue to.

    Raises InputError and BundleError before any work for what can be checked; ArchiveError if the output cannot be
    written or workers keep ending.
    """
    if not (request.out / FILE).exists():
        listing.check(request.inputs)
        if request.out.is_dir() and any(one.name not in ("parts", "private") for one in request.out.iterdir()):
            raise InputError(f"{request.out} has files that score did not write. Give a new or empty --out.")
    make_folders(request.out)
    with locked(request.out):
        # Read under the lock: a runner that has just ended may have written it.
        plan = Plan.read(request.out) if (request.out / FILE).exists() else None
        for folder in (request.out, request.out / "parts", private(request.out)):
            sweep(folder)
        if plan is not None:
            _check_same(plan, request)
        secret = _secret(request, plan)
        job = _job(request, plan, secret)
        workers = Workers(request.workers, job.threads, request.device, request.address)
        with closing(engine(request.engine, workers)) as made:
            if plan is None:
                plan = _planned(request, job, made)
            else:
                _check_key(plan, secret)
                _say_listing(plan)
            return _run(request, plan, job, made)


def _run(request: Request, plan: Plan, job: Job, made: Engine) -> Summary:
    bundle, options = plan.data["bundle"], plan.data["options"]
    job = replace(
        job,
        backend=bundle["backend"],
        precision=None if bundle["precision"] == "unknown" else bundle["precision"],
        threads=options["threads"],
        digest=bundle["digest"],
    )
    waiting, kept = [], 0
    if any(plan.parts.iterdir()):
        logger.info("verifying the parts that exist")
    for shard in plan.shards:
        fault = faults(plan, shard)
        if fault is None:
            kept += plan.listing.count(shard)
            continue
        waiting.append(shard)
        if fault:
            logger.warning(f"part {shard} is done again: {fault}")
    if kept:
        logger.info(f"{kept} of {plan.inputs} inputs have rows already, in {len(plan.shards) - len(waiting)} parts")
    log = Log(plan.out)
    try:
        progress = Progress(plan.inputs, kept)
        log.write("start", engine=request.engine, workers=request.workers, shards=len(waiting), kept=kept)
        left_out = _scored(made, plan, job, waiting, log, progress) if waiting else []
        log.write("end", scored=sum(progress.statuses.values()), left_out=left_out)
    finally:
        log.close()
    return Summary(plan, sum(progress.statuses.values()), kept, progress.statuses, tuple(left_out))


def _scored(made: Engine, plan: Plan, job: Job, waiting: list[int], log: Log, progress: Progress) -> list[int]:
    """Shards that were left out."""
    left_out, other_cpus = [], set()
    events = made.run(job, waiting)
    try:
        for one in events:
            if isinstance(one, Lost):
                progress.lost(one)
                log.write("lost", shard=one.shard, worker=one.worker, reason=one.reason, again=one.again)
                left_out += [] if one.again else [one.shard]
                continue
            progress.add(one)
            log.write("scored", **{name: value for name, value in one.__dict__.items() if name != "codes"})
            if one.cpu != plan.data["cpu"] and one.cpu not in other_cpus:
                other_cpus.add(one.cpu)
                progress.end_line()
                logger.warning(
                    f"{one.worker} has the processor {one.cpu}, the output was begun on {plan.data['cpu']}: the last "
                    "digits of probabilities may differ between them"
                )
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()
        progress.end_line()
    return left_out


def _planned(request: Request, job: Job, made: Engine) -> Plan:
    """Load the bundle in a worker, list the inputs, and write both down."""
    found = made.once(describe, job)
    for warning in found.pop("warnings"):
        logger.warning(warning)
    bundle = found["bundle"]
    logger.info(
        f"bundle {request.bundle}, SHA-256 {bundle['digest'][:12]}: {bundle['artifact']} in {bundle['backend']}"
    )
    logger.info("listing the inputs")
    skipped = Skipped()
    entries = listing.listed(request.inputs, skipped, outside=os.path.abspath(request.out))  # noqa: PTH100
    path = listing_path(request.out)
    about = {"folder": str(Path.cwd()), "inputs": list(request.inputs)}
    shard_images, shard_bytes = request.shard_images or SHARD_IMAGES, request.shard_bytes or SHARD_BYTES
    written = listing_file.write(
        path, entries, secret=job.secret, shard_images=shard_images, shard_bytes=shard_bytes, about=about
    )
    if skipped.kinds:
        kinds = ", ".join(f"{count} {kind}" for kind, count in skipped.kinds.most_common())
        logger.info(f"skipped {sum(skipped.kinds.values())} files: {kinds}")
    logger.info(f"{written.inputs} inputs in {written.shards} shards")
    return Plan.write(
        request.out,
        {
            **found,
            "options": {"device": request.device, "threads": job.threads},
            "key": fingerprint(job.secret),
            "listing": {
                "digest": written.digest,
                "file_sha256": sha256_file(path),
                "inputs": written.inputs,
                "bytes": written.bytes,
                "shards": written.shards,
                "shard_images": shard_images,
                "shard_bytes": shard_bytes,
                "skipped": dict(skipped.kinds.most_common()),
            },
        },
    )


def _job(request: Request, plan: Plan | None, secret: bytes) -> Job:
    if plan is not None:
        threads = plan.data["options"]["threads"]
    else:
        threads = request.threads or (1 if request.workers is None else max(1, available_cpus() // request.workers))
    return Job(
        out=os.path.abspath(request.out),  # noqa: PTH100  keeps links, which may be the same on every machine
        bundle=os.path.abspath(request.bundle),  # noqa: PTH100
        secret=secret,
        backend=request.backend,
        precision=request.precision,
        device=request.device,
        threads=threads,
        trust_code=request.trust_code,
        trusted_key=None if request.trusted_key is None else os.path.abspath(request.trusted_key),  # noqa: PTH100
        digest=request.trusted_digest,
    )


def _check_same(plan: Plan, request: Request) -> None:
    """Raise InputError if the request would continue the output in another way than it was begun."""
    manifest = request.bundle / "manifest.json" if request.bundle.is_dir() else request.bundle
    begun = plan.data["bundle"]
    try:
        digest = sha256_file(manifest)
    except OSError as error:
        raise BundleError(f"{manifest} cannot be read: {error.strerror}. Give the bundle's folder.") from error
    if digest not in begun["digest"].split("-"):
        raise InputError(
            f"{request.out} was begun with the bundle {begun['digest'][:12]}; {request.bundle} is {digest[:12]}. Give "
            "that bundle, or another --out."
        )
    asked = {
        "--device": (request.device, plan.data["options"]["device"]),
        "--threads": (request.threads, plan.data["options"]["threads"]),
        "--backend": (request.backend, begun["backend"]),
        "--precision": (request.precision, begun["precision"]),
        "--shard-images": (request.shard_images, plan.data["listing"]["shard_images"]),
        "--shard-mb": (request.shard_bytes and request.shard_bytes >> 20, plan.data["listing"]["shard_bytes"] >> 20),
        "--in": (list(request.inputs) or None, plan.listing.about["inputs"]),
    }
    for option, (now, before) in asked.items():
        if now is not None and now != before:
            raise InputError(
                f"{request.out} was begun with {option} {_shown(before)}, not {_shown(now)}. Give the same, or another "
                "--out."
            )
    if list(request.inputs) and plan.listing.about["folder"] != str(Path.cwd()):
        relative = [one for one in request.inputs if not Path(one).is_absolute() and "://" not in one]
        if relative:
            raise InputError(
                f"{request.out} was begun in {plan.listing.about['folder']}; {relative[0]} is relative to this folder. "
                "Continue there, or leave out --in."
            )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _secret(request: Request, plan: Plan | None) -> bytes:
    if request.key is not None:
        return read_key(request.key)
    path = private(request.out) / "key"
    return read_key(path) if path.exists() or plan is not None else make_key(path)


def _check_key(plan: Plan, secret: bytes) -> None:
    if fingerprint(secret) != plan.data["key"]:
        raise InputError(
            f"{plan.out} was begun with the key {plan.data['key']}, this one is {fingerprint(secret)}. Give the file "
            "that --key named then, or another --out."
        )


def _say_listing(plan: Plan) -> None:
    logger.info(
        f"continuing {plan.out}: {plan.inputs} inputs as they were listed when it was begun; files added since have no "
        "row. Give another --out to include them"
    )


def assert_complete(summary: Summary) -> None:
    """Raise ArchiveError if shards were left out."""
    if summary.left_out:
        shards = ", ".join(map(str, summary.left_out[:8])) + (", …" if len(summary.left_out) > 8 else "")
        raise ArchiveError(
            f"{len(summary.left_out)} of {len(summary.plan.shards)} shards have no part, because every worker that "
            f"scored them ended: {shards}. Check the memory of the machine; then run the same command again."
        )
