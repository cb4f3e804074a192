"""`connection_class`: HTTP/1.1 connections that are closed if the headers of a request do not arrive in time.

uvicorn limits the time between requests, but not that from the first byte of a request to the end of its headers, nor
that from a connection to its first request.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def connection_class(seconds: float) -> type[H11Protocol]:
    """The class for `uvicorn.Config(http=...)`. seconds: from the first byte, or the connection, to the headers."""

    class Connection(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._follow()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._follow()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._stop()

        def _follow(self) -> None:
            """Start the time if a request is awaited; stop it if one is being answered."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._deadline is None:
                self._deadline = self.loop.call_later(seconds, self._expire)

        def _stop(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _expire(self) -> None:
            self._deadline = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Connection
