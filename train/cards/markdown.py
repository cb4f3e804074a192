"""Markdown of the cards."""

from __future__ import annotations

from collections.abc import Sequence

from stageproof.runtime.text.escapes import line


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in GitHub's Markdown. heads, cells: plain text, but for ``**`` and `` ` `` of our own."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, one))} |" for one in lines)


def _cell(text: str) -> str:
    """No column, line or HTML of its own."""
    return line(text).replace("|", "\\|").replace("&", "&amp;").replace("<", "&lt;")
