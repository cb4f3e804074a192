"""A record as Markdown, for a README."""

from __future__ import annotations

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.reports import tables
from stageproof.benchmarks.reports.figures import figures
from stageproof.benchmarks.reports.sentences import about, circumstances, headline
from stageproof.train.reports import templates

_SHOWN = ("machine", "threads", "noise", "peak", "an image", "images", "commit")


def markdown(record: Record) -> str:
    """A sentence, a table for each scenario, and the machine."""
    found = figures(record.rows)
    facts = dict(circumstances(record))
    return templates.markdown(
        "benchmarks/reports/benchmarks.md.j2",
        about=about(record),
        headline=headline(found),
        busy=bool(record.machine.get("busy")),
        scenarios=[(tables.named(one), one.notes) for one in tables.scenarios(found)],
        machine="; ".join(f"{name}: {facts[name]}" for name in _SHOWN if name in facts),
    )
