"""Pages (HTML) and cards (Markdown) from Jinja2 templates: values are escaped, and undefined names are errors.

A template lies beside the module that fills it. Its name is its path from the folder that contains `train`, such as
``train/audit/audit.html.j2``. All pages extend ``train/reports/base.html.j2``, which includes the one stylesheet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from stageproof.runtime.text.escapes import line, lines
from stageproof.train.reports.charts.images import data_uri, is_svg, width
from stageproof.train.reports.formatting import format_figure, joined, number

_ROOT = Path(__file__).resolve().parents[2]
_MARKDOWN = re.compile(r"[\\|*`<]|](?=\()|&(?=[#\w])")


def html(name: str, **values: Any) -> str:
    """A page as HTML text, which fetches nothing. name: of the template. values: its variables; text is escaped.

    Raises jinja2.UndefinedError for a variable that the template uses and that is not given.
    """
    return _environment(lines).get_template(name).render(values)


def markdown(name: str, **values: Any) -> str:
    """A text in GitHub's Markdown, as `html`. Text of `values` stays in its line, table cell and paragraph."""
    text = _environment(_markdown).get_template(name).render(values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache
def _environment(escape: Callable[[str], str]) -> Environment:
    """The environment whose text values pass through `escape`, then through Jinja's escaping for HTML unless the
    result is `Markup`."""

    def shown(value: Any) -> Any:
        assert value is not None, "a template prints None"
        return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    made = Environment(
        loader=FileSystemLoader(_ROOT),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"data_uri": data_uri, "figure": format_figure, "joined": joined, "number": number}
    made.filters |= {"unbroken": _unbroken, "width": width}
    made.tests["svg"] = is_svg
    return made


def _markdown(text: str) -> Markup:
    """One line without mark-up of its own: no table column, emphasis, code, link, HTML."""
    return Markup(_MARKDOWN.sub(lambda found: f"\\{found[0]}", line(text)))


def _unbroken(text: str) -> str:
    """The text with intervals, ``[low, high]``, percentages and ``SD 1.2`` each on one line."""
    text = re.sub(r"(\d) %", "\\1\N{NO-BREAK SPACE}%", text)
    text = re.sub(r"\[(\S+), (\S+)\]", "[\\1,\N{NO-BREAK SPACE}\\2]", text)
    return re.sub(r"\bSD (\d)", "SD\N{NO-BREAK SPACE}\\1", text)
