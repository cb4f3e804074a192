"""The command-line options of `python -m benchmarks`, as a dataclass. Imports no engine, so --help is fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stageproof.runtime.cli.lists import reject_repeated_lists
from stageproof.runtime.errors import InputError
from stageproof.runtime.predictor import DEFAULT_BUNDLE
from stageproof.runtime.text.hints import program

SCENARIOS = ("single_stream", "multi_stream", "offline", "engine", "server", "scaling")
SAMPLES = 120
QUICK_SAMPLES = 24


@dataclass(frozen=True)
class Options:
    """What to measure, how long, and where to write the results."""

    bundle: Annotated[Path, tyro.conf.Positional] = Path(DEFAULT_BUNDLE)
    """The bundle to measure: every artifact in every installed backend."""
    remote: Annotated[str | None, tyro.conf.arg(name="from", metavar="SOURCE")] = None
    """In place of BUNDLE: a path, or hf:OWNER/NAME[@REVISION], a bundle in a repository of the Hugging Face Hub.
    It is downloaded."""
    scenario: tuple[Literal["single_stream", "multi_stream", "offline", "engine", "server", "scaling", "all"], ...] = (
        "single_stream",
    )
    """Scenarios to run, one or more. all: every scenario, with the slow peers."""
    data: Path | None = None
    """Folder of images, or .parquet. Default: slices that the run was not trained on."""
    run: Path | None = None
    """The run that was exported, for the PyTorch peers. Default: searched in runs/."""
    peers: bool = True
    """Also measure peers: other ways to run the same model, such as plain PyTorch or ONNX Runtime."""
    slow_peers: bool = False
    """Also measure peers that take minutes to compile or calibrate."""
    only: tuple[str, ...] = ()
    """Measure only contenders whose name contains one of these, such as: int8 "published snippet"."""
    quick: bool = False
    """Smoke test: fewer samples, and no measurement of the machine's peak performance."""
    samples: int | None = None
    """Timed samples per contender, interleaved; up to twice as many if times drift.
    The offline scenario takes a quarter of them, each the mean of 256 images. Default: 120, or 24 with --quick."""
    processes: int = 1
    """Start every contender in this many processes and divide the samples among them.
    Processes running the same code differ by about 1 %: use 5 or more to compare two runs closely."""
    images: int = 32
    """Maximum number of different images."""
    server_seconds: float = 60.0
    """Duration of the server scenario, in seconds."""
    server_load: float = 0.7
    """Request rate of the server scenario, relative to the throughput of a stream of the same Predictor."""
    threads: int | None = None
    """CPU threads for every contender. Default: all CPUs available to this process."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device of all contenders."""
    trust_code: bool = False
    """Also measure artifacts that contain code (.ts, .pt2, .engine). Use it only for bundles from a trusted source."""
    work: Path | None = None
    """Folder to keep what peers compile, for the next run. Default: a temporary folder."""
    out: Path | None = None
    """Write every raw sample, with hardware and versions, to this JSON file."""
    html: Path | None = None
    """Write a page with tables and charts to this file."""
    markdown: Path | None = None
    """Write the tables as Markdown to this file."""
    report: Path | None = None
    """Do not measure: print the results in this file, written by --out; with --html or --markdown also write them."""
    compare: tuple[Path, Path] | None = None
    """Do not measure: compare two files written by --out. Each row is faster, slower, no slower, or cannot tell."""
    margin: float = 0.05
    """The smallest slowdown that "no slower" rules out, as a fraction."""
    fail_on: Literal["slower", "unproven"] = "slower"
    """When --compare exits with status 1. slower: if any row is slower.
    unproven: if any row that is not a peer is neither faster nor no slower."""

    @property
    def counted(self) -> int:
        """Number of samples: `samples`, or the default."""
        return self.samples or (QUICK_SAMPLES if self.quick else SAMPLES)

    @property
    def per_process(self) -> int:
        """Samples per process, 12 or more."""
        return max(12, -(-self.counted // self.processes))

    @property
    def offline_turns(self) -> int:
        """Samples per process of the offline scenario: a quarter of the others. The default gives `--compare` the 30
        that it needs; each is the mean over 256 images, so that more would take long."""
        return max(3, self.per_process // 4)

    @property
    def scenarios(self) -> tuple[str, ...]:
        """The scenarios to run, in the order of `SCENARIOS`; single_stream is added to scaling, which has no rows."""
        selected = SCENARIOS if "all" in self.scenario else tuple(one for one in SCENARIOS if one in self.scenario)
        return ("single_stream", *selected) if selected == ("scaling",) else selected


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options parsed from `argv`. Exits with status 2 on a usage error.

    Raises InputError for numbers out of range, files that cannot be written, and options that exclude each other.
    """
    reject_repeated_lists(Options, argv)
    options: Options = tyro.cli(
        Options,
        args=argv,
        prog=program("benchmarks"),
        description="Measure the Predictor and other ways to run the same model.",
    )
    least: dict[str, tuple[float | None, float]] = {
        "--samples": (options.samples, 12),
        "--images": (options.images, 8),
        "--server-seconds": (options.server_seconds, 1),
        "--threads": (options.threads, 1),
        "--processes": (options.processes, 1),
    }
    for option, (value, lowest) in least.items():
        if value is not None and value < lowest:
            raise InputError(f"{option} is {value}, expected {lowest} or more.")
    if not 0 < options.server_load < 1:
        raise InputError(f"--server-load is {options.server_load}, expected a fraction between 0 and 1, such as 0.7.")
    if not 0 < options.margin < 1:
        raise InputError(f"--margin is {options.margin}, expected a fraction between 0 and 1, such as 0.05.")
    for option, path in (("--out", options.out), ("--html", options.html), ("--markdown", options.markdown)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise InputError(f"{option} {path}: expected a file in an existing folder. Create it, or give another.")
    written = [path.resolve() for path in (options.out, options.html, options.markdown, options.report) if path]
    if len(set(written)) < len(written):
        raise InputError("--out, --html, --markdown and --report name the same file twice. Give different files.")
    if options.compare and (options.report or options.out or options.html or options.markdown):
        raise InputError("--compare writes no files. Leave out --report, --out, --html and --markdown.")
    if options.report and options.out:
        raise InputError("--report does not measure, so --out has nothing to write. Leave one of them out.")
    return options
