"""Reports as files: an HTML page and Markdown, each written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from stageproof.benchmarks.records.read import Record
from stageproof.benchmarks.records.schema import write_text
from stageproof.runtime.errors import InputError


def write_reports(record: Record, html: Path | None, markdown: Path | None) -> None:
    """Write the reports whose path is given. Both texts are made before either is written.

    Raises InputError if one cannot be written.
    """
    texts: list[tuple[str, Path]] = []
    if html:
        from stageproof.benchmarks.reports.page import page

        texts.append((page(record), html))
    if markdown:
        from stageproof.benchmarks.reports.markdown import markdown as written

        texts.append((written(record), markdown))
    for text, path in texts:
        try:
            write_text(text, path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written: {error.strerror}. Give a file in a folder that exists."
            ) from error
