"""How `make docs` reads docstrings: paragraphs of ``name: what it is`` lines become lists.

A name starts a line; further lines of it are indented. A paragraph of any other form stays as it is.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_ENTRY = re.compile(r"((?:\w+|\w+(?:, \w+)+)): +(?=\S)")


class Lists(griffe.Extension):
    """Rewrites each docstring once, when its object was read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """obj: module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = "\n\n".join(map(_listed, obj.docstring.value.split("\n\n")))


def _listed(paragraph: str) -> str:
    lines = paragraph.split("\n")
    starts = [line for line in lines if not line.startswith(" ")]
    if not starts or not all(_ENTRY.match(line) or line.startswith("Raises ") for line in starts):
        return paragraph
    items = [_ENTRY.sub(r"- `\1`: ", line, count=1) if _ENTRY.match(line) else line for line in lines]
    raises = next((at for at, line in enumerate(items) if line.startswith("Raises ")), len(items))
    listed, rest = items[:raises], items[raises:]
    return "\n".join(listed + ([""] if listed and rest else []) + rest)
