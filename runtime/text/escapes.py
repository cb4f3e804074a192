r"""Escaping of untrusted text, such as file names and strings of a manifest, for output.

One function per medium, called where the output is written: `line` and `lines` for terminals and logs, `cell` for CSV
(HTML and Markdown: `train.reports.templates`). All of them escape invisible characters: control characters,
bidirectional marks, Unicode line separators, and bytes of a file name that are not UTF-8.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

_INVISIBLE = (
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # C0 except newline, DEL, C1
    "\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # bidirectional, zero-width, line separators
    "\ud800-\udfff\U000e0000-\U000e007f"  # bytes that are not UTF-8 (PEP 383), tags
)
_IN_LINES = re.compile(f"[{_INVISIBLE}]")
_IN_LINE = re.compile(f"[\n{_INVISIBLE}]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_LOOKS_ESCAPED = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[nrt\\])")
_FORMULA = re.compile(r"'*[=+\-@\t\r\uff0b\uff0d\uff1d\uff20]")


def line(text: str) -> str:
    """The text escaped for one line of a terminal or log."""
    return _IN_LINE.sub(_escaped, text)


def lines(text: str) -> str:
    """The text escaped for a terminal, with its line ends kept; for text that the caller composed of several lines."""
    return _IN_LINES.sub(_escaped, text)


def cell(text: str) -> str:
    """The text escaped for a CSV cell. Text that a spreadsheet would evaluate as a formula is prefixed with an
    apostrophe (CWE-1236).

    Reversible by `from_cell`, so that a CSV file can be resumed.
    """
    if _IN_LINE.search(text) or _LOOKS_ESCAPED.search(text):
        text = text.replace("\\", "\\\\")
    return line(f"'{text}" if _FORMULA.match(text) else text)


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    code = ord(sign)
    if sign in _SHORT:
        return _SHORT[sign]
    if 0xDC80 <= code <= 0xDCFF:  # a byte encoded by surrogateescape (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Escaping(io.TextIOBase):
    """A text stream that escapes everything written to it with `lines`.

    `unescaped` is the underlying stream, for output with control characters, such as a progress bar.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = stream
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without Δ must not raise

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
        """The underlying byte stream."""
        return self.unescaped.buffer


@contextmanager
def escaping() -> Iterator[None]:
    """Context manager that escapes everything written to standard output and standard error."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Escaping(before[0]), Escaping(before[1])
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def drawable(stream: Any) -> Any:
    """The stream underlying `Escaping`, for progress bars, which move the cursor."""
    return getattr(stream, "unescaped", stream)


def from_cell(text: str) -> str:
    """The original text of a cell written by `cell`."""
    raw = _LOOKS_ESCAPED.sub(_sign, text)
    return raw[1:] if raw.startswith("'") and _FORMULA.match(raw[1:]) else raw


def _sign(found: re.Match[str]) -> str:
    kind, digits = found[0][1], found[0][2:]
    if kind in "nrt\\":
        return {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}[kind]
    code = int(digits, 16)
    return chr(code + 0xDC00 if kind == "x" and code >= 0x80 else code)
