"""A server that does nothing: reads a request and sends the same answer. What the load generator reaches with it is the
load generator's own ceiling."""

from __future__ import annotations

import asyncio
import re
from typing import cast

_BODY = b'{"label": "none", "probabilities": [1.0]}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY) + _BODY
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self) -> None:
        self._got = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that is complete."""
        self._got += data
        while (end := self._got.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._got, 0, end)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self._got) < whole:
                return
            del self._got[:whole]
            self._transport.write(_ANSWER)


def serve(port: int) -> None:
    """Serve until the process is ended."""

    async def forever() -> None:
        await (await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port)).serve_forever()

    asyncio.run(forever())
