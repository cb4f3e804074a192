"""A serving record as text for a terminal of 80 columns, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap

from stageproof.benchmarks.reports.figures import LEAST_FOR, Interval, number
from stageproof.benchmarks.serving.analysis.figures import WIDEST, Figures, figures
from stageproof.benchmarks.serving.analysis.record import ServingRecord
from stageproof.benchmarks.serving.analysis.verdicts import verdicts
from stageproof.train.reports.tables import Table
from stageproof.train.reports.terminal import WIDTH, table

_WIDTHS = (28, 8, 6, 8, 8, 6, 6)
_STAGES = ("request", "wait", "decode", "preprocess", "engine")


def lines(record: ServingRecord) -> Iterator[str]:
    """A table for each load, then the verdicts, and the machine."""
    found = figures(record.cells)
    for load, group in groupby(found, key=lambda one: one.load):
        rows = [
            (
                _title(record, one),
                f"{one.per_s:.1f}",
                number(one.p50) if one.p50 is not None else "",
                number(one.p99) if one.p99 is not None else "",
                f"{one.pss_bytes / 1e6:.0f}" if one.pss_bytes else "",
                f"{one.cpu:.1f}" if one.cpu is not None else "",
                str(sum(one.errors.values())),
            )
            for one in group
        ]
        heads = (load, "images/s", "p50 ms", "p99 ms", "MB", "CPU ms", "errors")
        yield from table(heads, rows, _WIDTHS, right=range(1, len(heads)))
        yield ""
    for one in verdicts(record):
        yield from wrap(f"{one.word}: {one.aim}", WIDTH)
        if one.figure:
            yield from wrap(one.figure, WIDTH, initial_indent="  ", subsequent_indent="  ")
    yield ""
    for sentence in (_alone(record), _client(record), *map(str, record.facts["notes"])):
        yield from wrap(sentence, WIDTH)
    yield from wrap(_machine(record), WIDTH)


def markdown(record: ServingRecord) -> str:
    """Machine and settings, the verdicts, a table for each load, and where the service spends its time."""
    parts = [_machine(record), _alone(record) + " " + _client(record)]
    parts += [*map(str, record.facts["notes"]), _markdown(aims(record))]
    found = figures(record.cells)
    for _, group in groupby(found, key=lambda one: one.load):
        parts.append(_markdown(load_table(record, list(group))))
    parts.append(
        f"A p99 is shown from {LEAST_FOR[0.99]} requests. In brackets: 95 % intervals; none where few requests leave a "
        f"factor of more than {WIDEST:g} between its ends."
    )
    parts += [_markdown(stages(found)), _markdown(settings(record))]
    return "\n\n".join(parts) + "\n"


def aims(record: ServingRecord) -> Table:
    """The aims and whether they are met."""
    return Table(("aim", "measured", ""), tuple((one.aim, one.figure, one.word) for one in verdicts(record)))


def load_table(record: ServingRecord, rows: Sequence[Figures]) -> Table:
    """The servers under one load."""
    cells = []
    for one in rows:
        offered = "" if one.offered_per_s is None else f" of {one.offered_per_s:.1f}"
        errors = ", ".join(f"{count} {what}" for what, count in one.errors.items()) or "0"
        cells.append(
            (
                _title(record, one),
                f"{one.per_s:.1f}{offered}{_brackets(one.per_s_interval, '.1f')}",
                _with(one.p50, one.p50_interval),
                _with(one.p99, one.p99_interval),
                f"{one.cpu:.1f}" if one.cpu is not None else "",
                f"{one.pss_bytes / 1e6:.0f}" if one.pss_bytes else "",
                str(one.answered),
                errors,
            )
        )
    heads = (rows[0].load, "images/s", "p50, ms", "p99, ms", "CPU, ms per image", "memory, MB", "answers", "errors")
    return Table(heads, tuple(cells))


def stages(found: Sequence[Figures]) -> Table:
    """Where the service spends its time, by its own metrics."""
    rows = tuple(
        (
            one.load,
            *(number(one.stages[name]) if name in one.stages else "" for name in _STAGES),
            f"{one.stages['batch']:.1f}" if "batch" in one.stages else "",
        )
        for one in found
        if one.stages
    )
    return Table(("the service, mean ms", *_STAGES, "images of a batch"), rows)


def settings(record: ServingRecord) -> Table:
    """What each server ran with."""
    rows = tuple(
        (
            str(one["title"]),
            str(one["settings"]),
            ", ".join(f"{name} {version}" for name, version in one["versions"].items()),
            f"{one['start_s']:.1f}",
        )
        for one in record.servers.values()
    )
    return Table(("server", "settings", "versions", "start, s"), rows)


def _title(record: ServingRecord, one: Figures) -> str:
    return str(record.servers[one.server]["title"]) if one.server in record.servers else one.server


def _alone(record: ServingRecord) -> str:
    predictor = record.facts["predictor"]
    single, stream = (sorted(predictor.get(key) or ()) for key in ("latencies_ms", "stream_ms"))
    if not single or not stream:
        return "The Predictor alone was not measured."
    return (
        f"The Predictor alone, in the same rounds: {number(single[len(single) // 2])} ms for an image "
        f"({len(single)} images), {1e3 / stream[len(stream) // 2]:.1f} images/s in streams of batches of "
        f"{predictor['batch']} ({len(stream)} streams)."
    )


def _client(record: ServingRecord) -> str:
    reached = [f"{one.offered_per_s:.0f}/s with {one.load}" for one in record.ceiling if one.offered_per_s]
    most = max((one.client_cpu for one in record.cells), default=0.0)
    late = max((one.late_ms for one in record.cells if one.late_ms is not None), default=0.0)
    return (
        f"The load generator alone reaches {', '.join(reached)}; in the run it used at most {most:.0%} of a processor, "
        f"and the median request of an open loop was sent at most {late:.1f} ms late, which counts as latency."
    )


def _machine(record: ServingRecord) -> str:
    facts, machine = record.facts, record.facts["circumstances"]
    versions = machine.get("versions") or {}
    model, said = facts["bundle"], [str(machine.get("cpu", "unknown CPU")), f"{facts['threads']} processors"]
    said += [f"load average {machine['load_average']}"] if machine.get("load_average") is not None else []
    said += [f"noise {machine['noise']:.1%}"] if machine.get("noise") is not None else []
    spec = model.get("input") or {}
    said.append(f"{model.get('architecture')} {facts['precision']} at {spec.get('height')} × {spec.get('width')}")
    said.append(f"{facts['images'].get('count')} images of {facts['images'].get('source')}")
    said.append(f"onnxruntime {versions.get('onnxruntime', 'unknown')}")
    said += [f"{facts['rounds']} rounds", str(facts["started"]), f"commit {facts.get('commit')}"]
    busy = " This machine was too busy to measure on: do not publish these figures." if machine.get("busy") else ""
    return ", ".join(said) + "." + busy


def _with(value: float | None, within: Interval | None) -> str:
    if value is None:
        return ""
    return number(value) + (f" ({number(within[0])}–{number(within[1])})" if within else "")


def _brackets(within: Interval | None, form: str) -> str:
    return f" ({within[0]:{form}}–{within[1]:{form}})" if within else ""


def _markdown(shown: Table) -> str:
    if not shown.rows:
        return ""
    rows = [shown.heads, ["---"] * len(shown.heads), *shown.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
