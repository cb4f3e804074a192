"""`python -m serving.archive BUNDLE --in PATHS --out OUT`: score an archive; the same command continues it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stageproof.runtime.backends import BACKENDS, DEVICES
from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.cli.messages import shown
from stageproof.runtime.errors import StageproofError
from stageproof.runtime.inference.arguments import at_least_one, check_bundle_path
from stageproof.runtime.text.hints import command, program

if TYPE_CHECKING:
    from stageproof.serving.archive.output.plan import Plan

logger = logging.getLogger("stageproof.serving.archive")  # __name__ is __main__ under python -m

_EPILOG = """\
Inputs: folders, files, quoted patterns, tar and zip files, URLs, and .csv,
.tsv or .parquet lists of paths. Rows are written to OUT/parts, one parquet
file per shard, whole or not at all. After an interruption, the same command
continues.
OUT/private has the names of the inputs: share OUT/parts without it.

Exit status: 0 every input has a row, 1 not, 2 invalid usage or input.
Research use only: not a medical device.
"""


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        require("archive", "pyarrow")
        if options.engine == "ray":
            require("ray", "ray")
        if options.report:
            require("archive", "jinja2")
    except StageproofError as error:
        return report_error(error)
    if options.bundle is not None and options.verify:
        parser.error("--verify takes no bundle: it compares OUT with its own manifest")
    if options.verify and options.out is not None:
        parser.error("give either --verify OUT or --out OUT")
    if options.reread and not options.verify:
        parser.error("--reread needs --verify OUT")
    if options.address and options.engine != "ray":
        parser.error("--address needs --engine ray")
    if options.verify is None and options.out is None:
        parser.error(f"no output was given. For example: {_example()}")
    if options.verify is None and options.bundle is None and not options.report:
        parser.error(f"no bundle was given. For example: {_example()}")
    try:
        return _run(options)
    except StageproofError as error:
        return report_error(error)


def _run(options: argparse.Namespace) -> int:
    from stageproof.serving.archive.output.plan import Plan  # imports pyarrow

    if options.verify is not None:
        plan = Plan.read(options.verify)
        status = _verify(plan, reread=options.reread)
    elif options.bundle is None:
        plan, status = Plan.read(options.out), 0
    else:
        plan, status = _score(options)
    if options.report:
        from stageproof.serving.archive.report.page import write_report

        logger.info(f"report {write_report(plan)}")
    return status


def _score(options: argparse.Namespace) -> tuple[Plan, int]:
    from stageproof.serving.archive.run import Request, assert_complete, score

    at_least_one(
        **{"--workers": options.workers, "--threads": options.threads},
        **{"--shard-images": options.shard_images, "--shard-mb": options.shard_mb},
    )
    check_bundle_path(options.bundle, **{"--out": options.out})
    summary = score(
        Request(
            bundle=options.bundle,
            inputs=options.inputs or [],
            out=options.out,
            engine=options.engine,
            address=options.address,
            workers=options.workers,
            threads=options.threads,
            shard_images=options.shard_images,
            shard_bytes=None if options.shard_mb is None else options.shard_mb << 20,
            key=options.key,
            backend=options.backend,
            precision=options.precision,
            device=options.device,
            trust_code=options.trust_code,
            trusted_key=options.trusted_key,
            trusted_digest=options.trusted_digest,
        )
    )
    counts = ", ".join(f"{name} {count}" for name, count in sorted(summary.statuses.items())) or "none"
    print(
        f"{summary.plan.parts}: {summary.kept + summary.scored} of {summary.plan.inputs} inputs; in this run: {counts}"
    )
    try:
        assert_complete(summary)
    except StageproofError as error:
        return summary.plan, report_error(error)
    return summary.plan, 0


def _verify(plan: Plan, *, reread: bool) -> int:
    from stageproof.serving.archive.verification import verify

    found = verify(plan, reread=reread)
    for shard, fault in found.faults.items():
        print(f"part {shard}: {fault}")
    if found.missing:
        print(f"{len(found.missing)} shards have no part, the first one {found.missing[0]}")
    for name in found.foreign:
        print(f"parts/{name}: belongs to no shard; remove it")
    if found.changed:
        print(f"{found.changed} inputs have another content than what was scored")
    counts = ", ".join(f"{name} {count}" for name, count in sorted(found.statuses.items()))
    result = "complete" if found.complete else "NOT complete"
    print(f"{result}: {found.rows} of {found.inputs} inputs have a row ({counts or 'none'})")
    return 0 if found.complete else 1


def _example() -> str:
    return command("serving.archive", "bundle", "--in", "slices", "--out", "scores")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("serving.archive"),
        description="Score an archive of images into parquet files, on one machine or a cluster.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("bundle", nargs="?", type=Path, metavar="BUNDLE", help=f"bundle folder that {program('export')} wrote")
    add(
        "--in",
        dest="inputs",
        nargs="+",
        action="extend",
        metavar="PATH",
        help="inputs; left out: those that OUT was begun with",
    )
    add("--out", type=Path, metavar="OUT", help="folder of the results; continued if it was begun before")
    add("--verify", type=Path, metavar="OUT", help="check that every listed input has exactly one row")
    add("--reread", action="store_true", help="with --verify: also compare the inputs with what was scored")
    add("--report", action="store_true", help="write OUT/report.html; without BUNDLE, of a finished output")
    add("--engine", choices=("local", "ray"), default="local", help="what runs the workers (default: local)")
    add("--address", metavar="HOST:PORT", help="of a Ray cluster (default: start Ray on this machine)")
    add("--workers", type=int, metavar="N", help="number of workers (default: CPUs divided by threads)")
    add("--threads", type=int, metavar="N", help="CPU threads of a worker (default: 1, or CPUs divided by --workers)")
    add("--shard-images", type=int, metavar="N", help="most inputs of a shard (default: 2000)")
    add("--shard-mb", type=int, metavar="N", help="most MiB of a shard's inputs (default: 256)")
    add("--key", type=Path, metavar="FILE", help="key of the digests of names (default: a new one in OUT/private)")
    add("--backend", choices=list(BACKENDS), metavar="NAME", help=f"one of {', '.join(BACKENDS)}, without fallback")
    add("--precision", metavar="NAME", help="precision, without fallback, such as fp32")
    add("--device", choices=DEVICES, default="cpu", help="device of the workers (default: cpu)")
    code = "also load artifacts that contain code (.ts, .pt2, .engine); only for bundles whose author you trust"
    add("--trust-code", action="store_true", help=code)
    add("--trusted-key", type=Path, metavar="FILE", help="require a bundle signed with this key (PEM)")
    add("--trusted-digest", metavar="SHA256", help="require a bundle whose manifest has this SHA-256")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="archive"))
