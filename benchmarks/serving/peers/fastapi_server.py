"""Plain FastAPI around ONNX Runtime: an endpoint that runs the pipeline, without batching.

https://fastapi.tiangolo.com/async: an endpoint that blocks is a plain `def` function, which runs in a thread pool.
https://www.starlette.io/threadpool: the size of the pool. One thread for each processor runs fastest: with the default
of 40, as many inferences share the processors.
https://www.uvicorn.org/deployment and …/#quickstart: uvloop and httptools, which `uvicorn[standard]` installs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio.to_thread
import uvicorn
from fastapi import Body, FastAPI

from .pipeline import HOST, Pipeline, Settings


def application(settings: Settings) -> FastAPI:
    """The application: POST / with the bytes of an image."""
    pipeline = Pipeline(settings)

    @asynccontextmanager
    async def limited(_: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.threads
        yield

    app = FastAPI(lifespan=limited)

    @app.get("/ready")
    def ready() -> bool:
        return True

    @app.post("/")
    def predict(image: Annotated[bytes, Body(media_type="application/octet-stream")]) -> dict[str, Any]:
        return pipeline.answers([image])[0]

    return app


def serve() -> None:
    """Serve until the process is ended."""
    settings = Settings.read()
    uvicorn.run(application(settings), host=HOST, port=settings.port, access_log=False, log_level="warning")
