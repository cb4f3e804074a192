"""The command line of `python -m benchmarks`, as a dataclass: light, so that --help needs no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from stageproof.runtime.errors import InputError
from stageproof.runtime.predictor import DEFAULT_BUNDLE
from stageproof.runtime.text.hints import program

SCENARIOS = ("single_stream", "multi_stream", "offline", "engine", "server", "scaling")
SAMPLES = 120
QUICK_SAMPLES = 24


@dataclass(frozen=True)
class Options:
    """What to measure, and for how long."""

    bundle: Annotated[Path, tyro.conf.Positional] = Path(DEFAULT_BUNDLE)
    """The bundle to measure: every artifact in every backend that is here."""
    scenario: tuple[Literal["single_stream", "multi_stream", "offline", "engine", "server", "scaling", "all"], ...] = (
        "single_stream",
    )
    """One or several; all: every one, with the peers that take minutes to compile."""
    data: Path | None = None
    """Folder, or .parquet, of images to answer. Without it: slices the run did not train on."""
    run: Path | None = None
    """Run it was exported from, for the peers in PyTorch. Without it: looked for in runs/."""
    peers: bool = True
    """Also measure what users would run instead."""
    slow_peers: bool = False
    """Also the peers that take minutes to compile or calibrate."""
    only: tuple[str, ...] = ()
    """Measure only contenders whose name holds one of these, such as: int8 "published snippet"."""
    quick: bool = False
    """Fewer samples, and no floors: to see that it works."""
    samples: int | None = None
    """Timed answers of each contender, all contenders in turn; twice as many where they do not settle. Without it: 120,
    and 24 with --quick."""
    processes: int = 1
    """Start every contender this many times, and share the samples among these processes. Processes of the same code
    differ by a per cent or so: 5 or more are needed to compare two runs closely."""
    images: int = 32
    """Most different images to answer."""
    server_seconds: float = 60.0
    """How long requests arrive in the server scenario."""
    server_load: float = 0.7
    """Requests of the server scenario, as a share of the offline throughput."""
    threads: int | None = None
    """CPU threads for every contender. Without it: all this process may use."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where all contenders run."""
    trust_code: bool = False
    """Also measure artifacts that carry code (.ts, .pt2, .engine): of a bundle whose maker you trust."""
    work: Path | None = None
    """Folder that keeps what peers compile, for the next time. Without it: a temporary one."""
    out: Path | None = None
    """Write every raw sample, with hardware and versions, to this JSON file."""
    html: Path | None = None
    """Write a page with tables and drawings to this file."""
    markdown: Path | None = None
    """Write the tables as Markdown to this file."""
    report: Path | None = None
    """Measure nothing: show, and write as asked, what an earlier --out holds."""
    compare: tuple[Path, Path] | None = None
    """Measure nothing: a verdict for each row of two earlier --out: faster, slower, no slower, cannot tell."""
    margin: float = 0.05
    """The slowdown that "no slower" excludes, as a share."""
    fail_on: Literal["slower", "unproven"] = "slower"
    """When --compare ends with 1. slower: any row is slower. unproven: any row of ours is neither faster nor no
    slower."""

    @property
    def counted(self) -> int:
        """`samples`, or what stands in for it."""
        return self.samples or (QUICK_SAMPLES if self.quick else SAMPLES)

    @property
    def per_process(self) -> int:
        """Samples of each process, 12 or more."""
        return max(12, -(-self.counted // self.processes))

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Those to run, in the order of the list; scaling, which has no rows of its own, never alone."""
        asked = SCENARIOS if "all" in self.scenario else tuple(one for one in SCENARIOS if one in self.scenario)
        return ("single_stream", *asked) if asked == ("scaling",) else asked


def parse(argv: Sequence[str] | None = None) -> Options:
    """The options on the command line. Exits with 2 on a usage error.

    Raises InputError for numbers that measure nothing, for files that cannot be written, and for two tasks at once.
    """
    options: Options = tyro.cli(
        Options,
        args=argv,
        prog=program("benchmarks"),
        description="Measure the Predictor beside what users would run instead, in one run.",
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
        raise InputError(f"--server-load is {options.server_load}, expected a share between 0 and 1, such as 0.7.")
    if not 0 < options.margin < 1:
        raise InputError(f"--margin is {options.margin}, expected a share between 0 and 1, such as 0.05.")
    for option, path in (("--out", options.out), ("--html", options.html), ("--markdown", options.markdown)):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise InputError(f"{option} {path} is no file in a folder that exists. Make the folder, or give another.")
    written = [path.resolve() for path in (options.out, options.html, options.markdown, options.report) if path]
    if len(set(written)) < len(written):
        raise InputError("--out, --html, --markdown and --report name one file twice. Give each its own.")
    if options.compare and (options.report or options.out or options.html or options.markdown):
        raise InputError("--compare only prints. Leave out --report, --out, --html and --markdown.")
    if options.report and options.out:
        raise InputError("--report measures nothing, so there is nothing for --out. Leave one of them out.")
    return options
