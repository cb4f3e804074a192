"""Sentences about a record, the same in the terminal, on the page and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.reports.figures import SNIPPET, Figures, Interval, number


def about(record: Record) -> str:
    """The network that was measured: ``resnet50 at 224 × 224``."""
    bundle = record.facts["bundle"]
    spec = bundle.get("input") or {}
    return f"{bundle.get('architecture', 'a model')} at {spec.get('height', '?')} × {spec.get('width', '?')}"


def headline(found: Sequence[Figures]) -> str:
    """Latency of the fastest Predictor, compared with the published snippet, the roofline and the fastest peer."""
    single = [one for one in found if one.row.scenario == "single_stream"]
    ours = next((one for one in single if one.row.kind == "predictor"), None)
    if ours is None:
        return "Latency of one image through the Predictor was not measured in this run."
    said = f"{ours.row.name} predicts one image in {with_interval(ours.median, ours.interval)} ms"
    if ours.faster:
        said += f", {times(ours)} times faster than the published snippet"
    if ours.row.floor_share is not None:
        said += f", at {ours.row.floor_share:.0%} of this machine's peak {ours.row.precision} rate"
    peers = (one for one in single if one.row.kind == "peer" and one.row.precision == ours.row.precision)
    peer = next(peers, None)
    if peer and not peer.row.name.startswith(SNIPPET):
        said += f". The fastest peer in {ours.row.precision}, {peer.row.name}, takes {number(peer.median)} ms"
    return said + "."


def circumstances(record: Record) -> list[tuple[str, str]]:
    """Name and value of what the figures depend on: machine, versions, images."""
    machine, facts = record.machine, record.facts
    images, noise, others = facts.get("images") or {}, machine.get("noise"), machine.get("others")
    memory, clock = machine.get("memory_bytes"), machine.get("mhz")
    ceilings = [f"{name} {one['gflop_s']:.0f} GFLOP/s" for name, one in facts["floors"].items() if "gflop_s" in one]
    ceilings += [f"memory {one['gb_s']:.0f} GB/s" for one in facts["floors"].values() if "gb_s" in one]
    pairs = [
        ("machine", str(machine.get("cpu", "unknown"))),
        (
            "threads",
            f"{facts.get('threads')} on {machine.get('cpus')} CPUs" + (f" at {clock:.0f} MHz" if clock else ""),
        ),
        ("memory", f"{memory / 2**30:.1f} GiB" if memory else ""),
        ("noise", _twice(noise, machine.get("noise_after"), "of a fixed calculation, 10th to 90th percentile")),
        ("other processes", _twice(others, machine.get("others_after"), "of the CPUs")),
        ("load average", str(machine.get("load_average", ""))),
        ("peak", ", ".join(ceilings)),
        ("an image", f"{facts['work']['gflop_per_image']:.2f} GFLOP" if facts["work"].get("gflop_per_image") else ""),
        ("images", f"{images.get('count')} of {_last(images.get('source'))}" if images else ""),
        ("started", str(facts.get("started") or "")),
        ("commit", str(facts.get("commit") or "")),
        ("versions", ", ".join(f"{name} {found}" for name, found in (machine.get("versions") or {}).items())),
    ]
    return [(name, value) for name, value in pairs if value]


def served(one: Figures) -> str:
    """Whether a row of the server scenario met its latency bound."""
    server = one.row.server
    assert server is not None, "only rows of the server scenario"
    if one.p99 is None:
        outcome = f"{len(one.row.samples_ms)} samples, too few for a p99"
    else:
        outcome = "met at p99" if one.p99 <= server["latency_bound_ms"] else "missed at p99"
    rate, bound = f"{server['offered_per_s']:.1f}/s", number(server["latency_bound_ms"])
    return f"{rate} for {server['seconds']:.0f} s, bound {bound} ms: {outcome}; {server['lost']:.0f} lost"


def threads(record: Record) -> str:
    """``1 thread``, ``2 threads``."""
    count = record.facts.get("threads")
    return f"{count} thread{'' if count == 1 else 's'}"


def times(one: Figures) -> str:
    """``6.12 [6.05, 6.20]``: how many times faster than the published snippet; empty if unknown."""
    if one.faster is None:
        return ""
    within = one.faster_interval
    return f"{one.faster:.2f}" + (f" [{within[0]:.2f}, {within[1]:.2f}]" if within else "")


def _twice(before: float | None, after: float | None, of: str) -> str:
    """A share before the run and, if it was measured again, after it."""
    if before is None:
        return ""
    return f"{before:.1%} {of}" + (f"; {after:.1%} after the run" if after is not None else "")


def _last(source: object) -> str:
    """The name of a file without its folder."""
    return str(source).rpartition("/")[2]


def with_interval(value: float, interval: Interval | None) -> str:
    """``12.34 [12.20, 12.51]``."""
    return number(value) + (f" [{number(interval[0])}, {number(interval[1])}]" if interval else "")
