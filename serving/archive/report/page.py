"""`write_report`: the page `OUT/report.html`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stageproof.runtime.text.escapes import line
from stageproof.serving.archive.output.files import write_whole
from stageproof.serving.archive.output.plan import Plan
from stageproof.serving.archive.report.summary import BINS, SHOWN, Rows, Times, log_summary, rows_summary

FILE = "report.html"


def write_report(plan: Plan) -> Path:
    """Write the page; its path. Raises ArchiveError, InputError."""
    path = plan.out / FILE
    write_whole(path, page(plan, rows_summary(plan), log_summary(plan)).encode())
    return path


def page(plan: Plan, rows: Rows, times: Times) -> str:
    """The page as HTML. Text from files and models is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: line(value) if type(value) is str else value,
    )
    environment.filters |= {"number": number, "share": share}
    return environment.get_template("page.html.j2").render(
        plan=plan,
        rows=rows,
        times=times,
        classes=plan.classes,
        fitted=(plan.data["bundle"]["guard"] or {"fitted": {}})["fitted"],
        rejected=rows.statuses["rejected"] - rows.codes["unreadable"],
        shown=SHOWN,
        bins=BINS,
        rates=_bars(times.rates),
        histograms={name: _bars(score.counts.tolist()) for name, score in rows.scores.items()},
    )


def number(value: Any) -> str:
    """A number with thousands separated; floats with at most three significant digits."""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def share(part: int, whole: int) -> str:
    """A percentage; ``-`` of nothing."""
    if not whole:
        return "-"
    return f"{100 * part / whole:.1f}\N{NO-BREAK SPACE}%"


def _bars(values: list[float]) -> list[float]:
    """Heights in percent of the highest."""
    most = max(values, default=0) or 1
    return [round(100 * one / most, 2) for one in values]
