r"""Text that others wrote, such as file names and a manifest's strings, made safe for where it is shown.

One function for each medium, used where the output is written: `line` and `lines` for terminals and logs, `cell` for
CSV, `markup` for HTML; a table of Markdown escapes its cells itself (`train.cards.markdown`). Each first escapes
what a reader cannot see: control characters, marks that change the direction of text, other line ends of Unicode, and
bytes of a file name that are no UTF-8.
"""

from __future__ import annotations

import html
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_INVISIBLE = (
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # C0 but for the newline, DEL, C1
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # directions, invisible marks, line separators
    "\ud800-\udfff\U000e0000-\U000e007f"  # bytes that are no UTF-8 (PEP 383), tags
)
_IN_LINES = re.compile(f"[{_INVISIBLE}]")
_IN_LINE = re.compile(f"[\n{_INVISIBLE}]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_LOOKS_ESCAPED = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt\\])")
_FORMULA = re.compile(r"'*[=+\-@\t\r\uff0b\uff0d\uff1d\uff20]")


def line(text: str) -> str:
    """The text on one line of a terminal or a log."""
    return _IN_LINE.sub(_escaped, text)


def lines(text: str) -> str:
    """The text on a terminal, its own line ends kept: for what the caller has put together of several lines."""
    return _IN_LINES.sub(_escaped, text)


def cell(text: str) -> str:
    """The text as a value of CSV that no spreadsheet takes for a formula: those get an apostrophe in front (CWE-1236).

    Different texts stay different, so that a file can be gone on with.
    """
    if _IN_LINE.search(text) or _LOOKS_ESCAPED.search(text):
        text = text.replace("\\", "\\\\")
    return line(f"'{text}" if _FORMULA.match(text) else text)


def markup(text: str) -> str:
    """The text inside an element or a quoted attribute of HTML."""
    return html.escape(lines(text))


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    code = ord(sign)
    if sign in _SHORT:
        return _SHORT[sign]
    if 0xDC80 <= code <= 0xDCFF:  # a byte, as PEP 383 hides it
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Escaping(io.TextIOBase):
    """A text stream behind which a terminal may be: what reaches it went through `lines`.

    `unescaped` is the stream itself, for what draws on purpose, such as a progress bar.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no Δ is no reason to fail

    def write(self, text: str) -> int:
        self.unescaped.write(lines(text))
        return len(text)

    def flush(self) -> None:
        self.unescaped.flush()

    def isatty(self) -> bool:
        return self.unescaped.isatty()

    def fileno(self) -> int:
        return self.unescaped.fileno()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.unescaped.encoding

    @property
    def buffer(self) -> Any:
        """The bytes below."""
        return self.unescaped.buffer


@contextmanager
def escaping() -> Iterator[None]:
    """While entered, what is written to the standard output and error is escaped."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Escaping(before[0]), Escaping(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def drawable(stream: Any) -> Any:
    """The stream below `Escaping`: for progress bars, which move the cursor."""
    return getattr(stream, "unescaped", stream)


def from_cell(text: str) -> str:
    """What `cell` was given."""
    raw = _LOOKS_ESCAPED.sub(_sign, text)
    return raw[1:] if raw.startswith("'") and _FORMULA.match(raw[1:]) else raw


def _sign(found: re.Match[str]) -> str:
    kind, digits = found[0][1], found[0][2:]
    if kind in "nrt\\":
        return {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}[kind]
    code = int(digits, 16)
    return chr(code + 0xDC00 if kind == "x" and code >= 0x80 else code)
