"""A record as one self-contained HTML page."""

from __future__ import annotations

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.reports import charts, tables
from stageproof.benchmarks.reports.figures import LEAST_FOR, figures
from stageproof.benchmarks.reports.sentences import about, circumstances, headline
from stageproof.train.reports.charts.images import svg
from stageproof.train.reports.templates import html


def page(record: Record) -> str:
    """The HTML text."""
    found = figures(record.rows)
    scenarios = tables.scenarios(found)
    single = [one for one in found if one.row.scenario == "single_stream"]
    times, scaling = tables.stage_times(single), record.facts.get("scaling") or {}
    stages = [charts.stages(single)] if times.rows else []
    stages += [charts.stages(single, without="compute")] if "compute" in times.heads else []
    images = charts.cost_of_images(scaling["images"]) if scaling.get("images") else None
    changed, roofline = charts.changed_predictions(single), charts.roofline(found, record)
    return html(
        "benchmarks/reports/benchmarks.html.j2",
        title=f"Benchmarks of {about(record)}",
        headline=headline(found),
        busy=bool(record.machine.get("busy")),
        circumstances=circumstances(record),
        scenarios=[(one, tables.numbered(one), svg(charts.samples(one.rows))) for one in scenarios],
        changed=svg(changed) if changed else None,
        roofline=svg(roofline) if roofline else None,
        stages=[svg(one) for one in stages],
        stage_times=times,
        images=(svg(images[0]), f"{images[1]:.1%}") if images else None,
        by_images=tables.cost_by_images(scaling.get("images") or ()),
        by_workers=tables.cost_by_workers(scaling.get("workers") or ()),
        costs=tables.process_costs(found),
        least=LEAST_FOR,
        floors=[f"{name}: {entry['how']}" for name, entry in record.facts["floors"].items() if entry.get("how")],
        notes=list(map(str, record.facts.get("notes") or ())),
    )
