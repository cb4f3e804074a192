"""`Access`: what every HTTP request passes: host, origin, token, request id, access log, metrics, last resort."""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Collection
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stageproof.serving.http.inference.errors import Refusal
from stageproof.serving.http.inference.metrics import Metrics

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"))
OPEN_PATHS = ("/v2/health/live", "/v2/health/ready")
"""Paths that need neither token nor host: probes of an orchestrator."""


class Access:
    """ASGI middleware around the application.

    token: what a client must send as ``Authorization: Bearer``; None: nothing. hosts: accepted names in the header
    Host; None: all. open_paths: paths without token. log: whether each request is logged.

    A log record has method, route, status, time, address and request id. It has neither the path, the query nor names
    of files, which may identify a patient.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        *,
        token: bytes | None,
        hosts: Collection[str] | None,
        open_paths: Collection[str] = (),
        log: bool = True,
    ) -> None:
        self._app, self._metrics, self._token, self._hosts, self._log = app, metrics, token, hosts, log
        self._open = frozenset({*OPEN_PATHS, *open_paths})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, headers = time.monotonic(), dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id", b""))
        status = 499  # the client left before a response

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            if scope["path"] not in OPEN_PATHS:
                self._check_host(headers)
            if scope["path"] not in self._open:
                check_token(self._token, headers.get(b"authorization", b""))
            await self._app(scope, receive, answered)
        except Refusal as refusal:
            await _send(answered, refusal)
        except Exception as error:
            logger.exception(f"request {request_id} failed ({type(error).__name__})")
            if status == 499:
                await _send(answered, Refusal(500, f"the request failed ({type(error).__name__})."))
        finally:
            self._record(scope, status, time.monotonic() - start, request_id)

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        host = _name(headers.get(b"host", b""))
        if self._hosts is not None and host not in self._hosts:
            raise Refusal(403, "the header Host names another host than this service's. See --allow-host.")
        # Browsers send it: a page of another site must not use the service through its visitor.
        if b"origin" in headers and _name(headers[b"origin"].rpartition(b"//")[2]) not in {host, *(self._hosts or ())}:
            raise Refusal(403, "the header Origin names another site. See --allow-host.")

    def _record(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        route = getattr(scope.get("route"), "path", "other")
        self._metrics.requests.labels(route, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if self._log:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            client = (scope.get("client") or ("unknown",))[0]
            logger.info(f"{method} {route} {status} {seconds * 1e3:.1f} ms, {client}, request {request_id}")


def check_token(token: bytes | None, header: bytes) -> None:
    """Raise Refusal (401) unless the header is ``Bearer`` and the token, compared in constant time."""
    scheme, _, given = header.partition(b" ")
    if token is not None and not (scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token)):
        raise Refusal(401, "the bearer token is missing or wrong. Send the header Authorization: Bearer TOKEN.")


def _request_id(given: bytes) -> str:
    return given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _name(host: bytes) -> str:
    """The name in a header Host, in lower case, without port and brackets."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0]


async def _send(send: Send, refusal: Refusal) -> None:
    content = json.dumps(refusal.body).encode()
    headers: list[Any] = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
