"""The HTTP application: routes of the Open Inference Protocol, uploads, metrics and the page."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

import stageproof
from stageproof.runtime.images.reader import Source
from stageproof.serving.http import schema
from stageproof.serving.http.inference.batching import Answer
from stageproof.serving.http.inference.errors import Refusal
from stageproof.serving.http.inference.metrics import CONTENT_TYPE
from stageproof.serving.http.inference.service import READY, Service
from stageproof.serving.http.protocol import metadata, requests
from stageproof.serving.http.transport.access import Access
from stageproof.serving.http.transport.bodies import Budget, Held, body, chunks
from stageproof.serving.http.transport.uploads import is_zip, unzipped, uploads

PAGE = Path(__file__).parent / "page"
"""Static files of the page at /; the service works without them."""


def application(service: Service, budget: Budget, token: bytes | None) -> ASGIApp:
    """The ASGI application. budget: shared with gRPC. token: required of clients; None: nothing is."""
    # Its own pages of documentation load scripts from another host.
    app = FastAPI(title="Stageproof", version=stageproof.__version__, docs_url=None, redoc_url=None)
    app.description = schema.ABOUT
    _handlers(app)
    _protocol(app, service, budget)
    _uploads(app, service, budget)
    pages = _page(app)
    options = service.options
    return Access(app, service.metrics, token=token, hosts=options.hosts, open_paths=pages, log=options.access_log)


def _handlers(app: FastAPI) -> None:
    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    @app.exception_handler(HTTPException)
    async def not_found(request: Request, error: HTTPException) -> Response:
        text = (
            f"there is no such path ({error.detail}). See /openapi.json." if error.status_code == 404 else error.detail
        )
        return JSONResponse({"error": text}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody receives it; the access log has the status


def _protocol(app: FastAPI, service: Service, budget: Budget) -> None:
    options = service.options
    model = "/v2/models/{model}"
    versioned = f"{model}/versions/{{version}}"

    @app.get("/v2", tags=["protocol"])
    async def server_metadata() -> dict[str, Any]:
        """Metadata of the server."""
        return metadata.server()

    @app.get("/v2/health/live", tags=["protocol"])
    async def live() -> dict[str, bool]:
        """200 as soon as the process accepts connections."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["protocol"])
    async def ready() -> Response:
        """200 after the self-test passed, else 503; the body has the bundle and the last reload."""
        return JSONResponse(service.status(), 200 if service.state == READY else 503)

    @app.get(f"{model}/ready", tags=["protocol"])
    @app.get(f"{versioned}/ready", tags=["protocol"], include_in_schema=False)
    async def model_ready(model: str, version: str = "") -> Response:
        """As /v2/health/ready; 404 for another model."""
        metadata.check_model(options.name, model, version)
        return await ready()

    @app.get(model, tags=["protocol"])
    @app.get(versioned, tags=["protocol"], include_in_schema=False)
    async def model_metadata(model: str, version: str = "") -> dict[str, Any]:
        """Inputs, outputs, labels and digests of the model."""
        metadata.check_model(options.name, model, version)
        return metadata.model(options.name, service.loaded)

    @app.post(f"{model}/infer", tags=["protocol"], openapi_extra=schema.INFER)
    @app.post(f"{versioned}/infer", tags=["protocol"], include_in_schema=False)
    async def infer(request: Request, model: str, version: str = "") -> Response:
        """Predictions as tensors. A rejected image is an answer."""
        metadata.check_model(options.name, model, version)
        service.loaded  # noqa: B018  raises before the body is read
        with budget.held() as held:
            content = await body(request, held, options.max_body, options.body_timeout_s)
            asked = requests.read(content, request.headers.get(requests.HEADER), options.max_images)
            del content
            answer = await _wanted(request, service.answer(asked.images, service.deadline(asked.timeout)))
            written, length = requests.write(asked, answer, options.name)
        if length is None:
            return Response(written, media_type="application/json")
        return Response(written, media_type="application/octet-stream", headers={requests.HEADER: str(length)})

    @app.get("/metrics", tags=["operation"])
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE})


def _uploads(app: FastAPI, service: Service, budget: Budget) -> None:
    options = service.options

    def received(request: Request, held: Held) -> Any:
        return chunks(request, held, options.max_body, options.body_timeout_s)

    async def answer(request: Request, images: Sequence[Source], *, study: bool = False) -> Answer:
        return await _wanted(request, service.answer(images, service.deadline(None), study=study))

    @app.post("/predict", tags=["uploads"], openapi_extra=schema.PREDICT)
    async def predict(request: Request) -> Response:
        """The prediction for each uploaded file, in order."""
        service.loaded  # noqa: B018  raises before the body is read
        with budget.held() as held:
            files = await uploads(request, received(request, held), options.max_images)
            found = await answer(request, [file.content for file in files])
            names = [file.name for file in files]
        rows = zip(names, found.predictions, strict=True)
        return JSONResponse([{"file": name, **prediction.to_dict()} for name, prediction in rows])

    @app.post("/studies", tags=["uploads"], openapi_extra=schema.STUDIES)
    async def studies(request: Request) -> Response:
        """The result for one patient, from the uploaded slices, or zip files of them."""
        service.loaded  # noqa: B018  raises before the body is read
        with budget.held() as held:
            sent = await uploads(request, received(request, held), options.max_images)
            if any(map(is_zip, sent)):
                held.at_least(held.bytes + options.max_body)  # for what the zip files unpack to
            files, skipped = await asyncio.to_thread(unzipped, sent, options.max_images, options.max_body)
            found = await answer(request, [file.content for file in files], study=True)
            names = [file.name for file in files]
        assert found.study is not None
        return JSONResponse({**found.study.to_dict(), "files": names, "skipped": skipped})


def _page(app: FastAPI) -> list[str]:
    """Serve the page at /, if it is installed. Returns its paths, which need no token: they hold no data."""
    if not (PAGE / "index.html").is_file():
        return []
    app.mount("/", StaticFiles(directory=PAGE, html=True), name="page")
    return ["/", *(f"/{path.relative_to(PAGE).as_posix()}" for path in PAGE.rglob("*") if path.is_file())]


async def _wanted(request: Request, answer: Awaitable[Answer]) -> Answer:
    """The answer, as long as the client is connected. Raises ClientDisconnect, and cancels `answer`."""
    work = asyncio.ensure_future(answer)
    left = asyncio.ensure_future(_disconnected(request.receive))
    try:
        await asyncio.wait((work, left), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        for task in (work, left):
            task.cancel()


async def _disconnected(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
