"""Bodies of requests: read within limits of bytes and time, and within one budget of bytes for all requests.

Nothing is written to disk: an upload may be a patient's image.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from stageproof.serving.http.inference.errors import Refusal, bad


class Budget:
    """Bytes of all requests that are being received or predicted. For one event loop. observe: gets their number."""

    def __init__(self, most: int, observe: Callable[[int], object] = lambda used: None) -> None:
        self._most, self._used, self._observe = most, 0, observe

    @contextmanager
    def held(self) -> Iterator[Held]:
        """A share of the budget for one request, which is returned at the end."""
        share = Held(self)
        try:
            yield share
        finally:
            self._used -= share.bytes
            self._observe(self._used)

    def take(self, count: int) -> None:
        """Raise Refusal (503) if so many more bytes would exceed the budget."""
        if self._used + count > self._most:
            raise Refusal(
                503,
                f"requests of {self._used} bytes are being answered, and {count} more would exceed {self._most}. Send "
                "the request again later.",
                retry_after=1,
            )
        self._used += count
        self._observe(self._used)


class Held:
    """The bytes that one request holds."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self.bytes = budget, 0

    def at_least(self, count: int) -> None:
        """Hold so many bytes in all. Raises Refusal (503)."""
        if count > self.bytes:
            self._budget.take(count - self.bytes)
            self.bytes = count


async def chunks(request: Request, held: Held, most: int, seconds: float) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises Refusal: 400 for an invalid length, 408 after `seconds`, 413 above `most` bytes, 415 for a compressed body,
    503 beyond the budget; ClientDisconnect.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "the body has a Content-Encoding; expected none. Send it uncompressed.")
    length = request.headers.get("content-length")
    if length is not None:
        if not (length.isascii() and length.isdigit()):
            raise bad("the header Content-Length is no number.")
        if len(length) > 15 or int(length) > most:
            raise _too_large(most)
        held.at_least(int(length))
    end, received = time.monotonic() + seconds, 0
    stream = request.stream().__aiter__()
    while True:
        try:
            chunk = await asyncio.wait_for(stream.__anext__(), max(0.0, end - time.monotonic()))
        except StopAsyncIteration:
            return
        except (asyncio.TimeoutError, TimeoutError):
            raise Refusal(408, f"the body did not arrive within {seconds:g} seconds.") from None
        received += len(chunk)
        if received > most:
            raise _too_large(most)
        held.at_least(received)
        yield chunk


async def body(request: Request, held: Held, most: int, seconds: float) -> bytearray:
    """The whole body; as `chunks`."""
    found = bytearray()
    async for chunk in chunks(request, held, most, seconds):
        found += chunk
    return found


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body has more than the {most} bytes allowed. Send fewer images at once.")
