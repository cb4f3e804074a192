"""`add_page`: the page at /, its static files beside it, and `/page/settings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from stageproof.serving.http.inference.service import Service

STATIC = Path(__file__).parent / "static"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Sent with every file of the page: no inline script, and nothing from another host."""


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI, service: Service) -> list[str]:
    """Add the page to the application, after all other routes. Returns the paths of its files: they hold no data, and
    need no token. `/page/settings` needs it."""

    @app.get("/page/settings", tags=["page"])
    async def settings() -> dict[str, Any]:
        """The model, the guard's thresholds and the limits of a request (bytes, images), for the page."""
        loaded, options = service.loaded, service.options
        return {
            "name": options.name,
            "labels": list(loaded.labels),
            "model_digest": loaded.model_digest,
            "bundle_digest": loaded.bundle_digest,
            "thresholds": dict(loaded.thresholds),
            "max_body": options.max_body,
            "max_images": min(options.max_images, options.queue_images),
        }

    app.mount("/", _Files(directory=STATIC, html=True), name="page")
    return ["/", *(f"/{path.relative_to(STATIC).as_posix()}" for path in STATIC.rglob("*") if path.is_file())]
