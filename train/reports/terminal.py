"""Tables for a terminal of 80 columns."""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 80


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int], right: Collection[int] = ()
) -> list[str]:
    """Lines of a table. A cell that is too long for its column continues on the next line, in its column.

    heads: of the columns; empty: none. widths: characters of each column, without the space between columns.
    right: positions of the columns that are aligned to the right.
    """
    made = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=bool(heads), header_style="")
    for at, wide in enumerate(widths):
        head = Text(heads[at]) if heads else ""
        made.add_column(head, width=wide, justify="right" if at in right else "left", overflow="fold", vertical="top")
    for row in rows:
        made.add_row(*map(Text, row))  # Text: brackets in a cell are no mark-up
    file = io.StringIO()
    Console(file=file, width=WIDTH, color_system=None, legacy_windows=False).print(made)
    return [line.rstrip() for line in file.getvalue().splitlines()]
