"""`Refusal`: a request that is not answered with predictions, and its status in HTTP and gRPC."""

from __future__ import annotations

from typing import Any

GRPC = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""HTTP status → name of the gRPC status."""


class Refusal(Exception):  # noqa: N818  (most are no errors of the service)
    """The request is refused: `status` of HTTP, and what was got, what was expected and what to do next.

    retry_after: seconds until the request may be repeated; only with 503.
    """

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after

    @property
    def grpc(self) -> str:
        """Name of the gRPC status."""
        return GRPC[self.status]

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the response, as the Open Inference Protocol defines it."""
        return {"error": self.message}

    @property
    def headers(self) -> dict[str, str]:
        """Additional headers of the response."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def bad(message: str) -> Refusal:
    """The refusal of an invalid request, 400."""
    return Refusal(400, message)
