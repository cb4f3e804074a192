"""One self-contained HTML page, for every report: no script, no network, dark text on white, room for a telephone."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from stageproof.runtime.text.escapes import markup as escape

_READABLE = 0.6  # of the pixels of a figure at 120 dpi: text of 10 points is then 10 pixels high
_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 58rem; margin: 2rem auto; padding: 0 1rem; color: #222;
  background: #fff }
table { border-collapse: collapse; font-size: 14px; margin: 1rem 0; display: block; overflow-x: auto }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td { font-variant-numeric: tabular-nums } h2 { margin-top: 2.5rem }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 13px }
img { max-width: 100%; display: block; margin: 1rem 0 } .picture { overflow-x: auto }
@media (max-width: 40rem) { .picture img { max-width: none; width: max(100%, var(--least, 0px)) } }
.note { color: #555; font-size: 14px }
.warning { background: #fbe9e7; border-left: 4px solid #c0392b; padding: .6rem 1rem }
.headline { font-size: 1.15rem }
"""


def document(title: str, parts: Sequence[str], ending: str, style: str = "") -> str:
    """The HTML text. title, ending: plain text. parts: HTML, below one another. style: CSS beside the common one."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}{style}</style>{''.join(parts)}"
        f'<p class="note">{escape(ending)}</p></html>'
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """heads, cells: plain text. An interval, ``[low, high]``, is not broken over two lines."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{_unbroken(escape(cell))}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _unbroken(text: str) -> str:
    text = re.sub(r"\[(\S+), (\S+)\]", "[\\1,\N{NO-BREAK SPACE}\\2]", text)
    return re.sub(r"\bSD (\d)", "SD\N{NO-BREAK SPACE}\\1", text)


def picture(png: bytes, alternative: str) -> str:
    """A PNG inside the page. alternative: plain text.

    On a telephone it is not drawn narrower than its text can be read: it scrolls sideways instead.
    """
    width = int.from_bytes(png[16:20], "big") if png[:8] == b"\x89PNG\r\n\x1a\n" else 0
    least = f' style="--least:{round(_READABLE * width)}px"' if width > 360 else ""
    content = base64.b64encode(png).decode()
    return f'<div class="picture"><img alt="{escape(alternative)}"{least} src="data:image/png;base64,{content}"></div>'
