"""Figures of matplotlib as PNG and SVG, and as the source of an image in a page."""

from __future__ import annotations

import base64
import io
import re

import matplotlib
from matplotlib.figure import Figure  # not pyplot, which keeps global state

_PNG = b"\x89PNG\r\n\x1a\n"
_DPI = 120


def new_figure(width: float, height: float) -> Figure:
    """An empty figure. width, height: inches; text of 10 points is readable in a figure 4.9 inches wide on a phone."""
    return Figure(figsize=(width, height), layout="constrained")


def png(figure: Figure) -> bytes:
    """The figure at 120 pixels an inch. The same figure always gives the same bytes."""
    file = io.BytesIO()
    figure.savefig(file, dpi=_DPI, format="png", metadata={"Software": None})
    return file.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG, without metadata. The same figure always gives the same bytes."""
    file = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "stageproof", "svg.fonttype": "none"}):
        figure.savefig(file, dpi=2 * _DPI, format="svg", metadata=nothing)  # dpi: of parts that are rasterised
    return file.getvalue()


def is_svg(content: bytes) -> bool:
    """Whether a picture is SVG and not PNG."""
    return not content.startswith(_PNG)


def width(content: bytes) -> int:
    """Width in CSS pixels at which text of 10 points is 10 pixels high. content: PNG at 120 pixels an inch, or SVG."""
    if is_svg(content):
        found = re.search(rb'<svg[^>]* width="([\d.]+)pt"', content)
        assert found, "matplotlib writes the width in points"
        return round(float(found[1]))
    return round(int.from_bytes(content[16:20], "big") * 72 / _DPI)


def data_uri(content: bytes) -> str:
    """The picture as a ``data:`` address, so that a page needs no other file. content: PNG or SVG."""
    kind = "svg+xml" if is_svg(content) else "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
