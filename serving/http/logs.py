"""`ServiceHandler`: the service's log on standard error."""

from __future__ import annotations

import logging
import time

from stageproof.runtime.cli.messages import CommandHandler, LineFormatter


class _Formatter(LineFormatter):
    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        return f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%SZ')} {super().format(record)}"


class ServiceHandler(CommandHandler):
    """Prints records with the time. A log that cannot be written (full disk, closed pipe) does not end the service."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Formatter())

    def handleError(self, record: logging.LogRecord) -> None:  # type: ignore[override]  # noqa: N802
        """Nothing: requests are answered all the same."""
