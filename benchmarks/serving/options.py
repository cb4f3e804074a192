"""The command-line options of `python -m benchmarks serving`, as a dataclass. Imports no engine, so --help is fast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from stageproof.runtime.errors import InputError
from stageproof.runtime.predictor import DEFAULT_BUNDLE
from stageproof.runtime.text.hints import program

SERVERS = ("stageproof", "fastapi", "litserve", "bentoml", "mlserver", "kserve", "rayserve", "pytriton")


@dataclass(frozen=True)
class ServingOptions:
    """What to serve, which servers to measure, and how long."""

    bundle: Annotated[Path, tyro.conf.Positional] = Path(DEFAULT_BUNDLE)
    """The bundle to serve: its ONNX file, by every server with ONNX Runtime."""
    peer: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """NAME=PYTHON, may be repeated: measure this peer with this interpreter, which has it installed. Names: fastapi,
    litserve, bentoml, mlserver, kserve, rayserve, pytriton. Others are measured if this interpreter has them."""
    only: tuple[str, ...] = ()
    """Measure only these servers: stageproof or names of peers."""
    precision: str | None = None
    """Precision of the ONNX file. Default: that of the bundle's fastest one."""
    data: Path | None = None
    """Folder of images, or .parquet. Default: slices that the run was not trained on."""
    run: Path | None = None
    """The run that was exported, for its slices. Default: searched in runs/."""
    images: int = 32
    """Maximum number of different images."""
    rounds: int = 3
    """Number of rounds; each measures every server under every load."""
    seconds: float = 3.0
    """Duration of a load in a round; loads that need more requests take up to 2.5 times as long, and half load
    of the service up to 10 times."""
    stream_images: int = 256
    """Images of each stream that throughput is compared with; two in a round."""
    threads: int | None = None
    """Processors for every server. Default: all that are available to this process."""
    work: Path | None = None
    """Folder for logs and for what is measured: with the same folder and options, an interrupted run continues.
    Default: a temporary folder."""
    out: Path | None = None
    """Write every latency, with hardware and versions, to this JSON file."""
    markdown: Path | None = None
    """Write the tables as Markdown to this file."""
    report: Path | None = None
    """Do not measure: print the results in this file, written by --out; with --markdown also write them."""

    @property
    def interpreters(self) -> Mapping[str, str]:
        """Peer → interpreter, as given."""
        return dict(_pair(text) for text in self.peer)


def _pair(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in SERVERS[1:] or not python:
        raise InputError(f"--peer is {text!r}, expected NAME=PYTHON with NAME one of {', '.join(SERVERS[1:])}.")
    return name, python


def parse(argv: Sequence[str] | None = None) -> ServingOptions:
    """The options parsed from `argv`. Exits with status 2 on a usage error.

    Raises InputError for numbers out of range, unknown names, and files that cannot be written.
    """
    options: ServingOptions = tyro.cli(
        ServingOptions,
        args=argv,
        prog=f"{program('benchmarks')} serving",
        description="Measure the service beside other servers of the same network.",
    )
    least: dict[str, tuple[float | None, float]] = {
        "--images": (options.images, 8),
        "--rounds": (options.rounds, 1),
        "--seconds": (options.seconds, 0.2),
        "--stream-images": (options.stream_images, 16),
        "--threads": (options.threads, 1),
    }
    for option, (value, lowest) in least.items():
        if value is not None and value < lowest:
            raise InputError(f"{option} is {value}, expected {lowest} or more.")
    unknown = [name for name in options.only if name not in SERVERS]
    if unknown:
        raise InputError(f"--only names {', '.join(unknown)}, expected any of {', '.join(SERVERS)}.")
    if len(options.interpreters) < len(options.peer):
        raise InputError("--peer names a peer twice. Give one interpreter for each.")
    for option, path in (("--out", options.out), ("--markdown", options.markdown)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise InputError(f"{option} {path}: expected a file in an existing folder. Create it, or give another.")
    if options.work is not None and options.work.exists() and not options.work.is_dir():
        raise InputError(f"--work {options.work} is not a folder.")
    if options.report and options.out:
        raise InputError("--report does not measure, so --out has nothing to write. Leave one of them out.")
    return options
