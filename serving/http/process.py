"""`serve`: one worker process: HTTP and gRPC in one event loop, signals, and the exchange of the bundle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import socket
from collections.abc import Callable, Generator
from pathlib import Path

import uvicorn

from stageproof.serving.http.app import application
from stageproof.serving.http.hangups import let_through
from stageproof.serving.http.inference.errors import Refusal
from stageproof.serving.http.inference.metrics import Metrics
from stageproof.serving.http.inference.service import Service
from stageproof.serving.http.options import Options
from stageproof.serving.http.transport.bodies import Budget
from stageproof.serving.http.transport.connections import connection_class

logger = logging.getLogger(__name__)

BACKLOG = 1024
"""Connections that the kernel holds until a worker accepts them."""
_KEEP_ALIVE_S = 60


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Nothing: `serve` handles signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but with the whole backlog: `Config.backlog` is also how many connections one worker takes at
        once, which should then be few."""
        await super().startup(sockets)
        for one in sockets or []:
            one.listen(BACKLOG)


def serve(
    options: Options,
    listener: socket.socket,
    token: bytes | None,
    on_ready: Callable[[], None] = lambda: None,
    *,
    accept_when_ready: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT, and answer what was accepted by then. SIGHUP loads the bundle again.

    listener: bound socket. on_ready: called once the self-test passed. accept_when_ready: accept no connection before;
        other workers do.
    Raises what loading the first bundle raises, StageproofError if the gRPC port is taken.
    """
    asyncio.run(_serve(options, listener, token, on_ready, accept_when_ready=accept_when_ready))


async def _serve(
    options: Options,
    listener: socket.socket,
    token: bytes | None,
    on_ready: Callable[[], None],
    *,
    accept_when_ready: bool,
) -> None:
    service = Service(options, Metrics())
    budget = Budget(options.queue_mb << 20, service.metrics.held_bytes.set)
    server = _Server(_config(options, application(service, budget, token)))
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def stop() -> None:
        service.drain()
        if stopping.is_set():  # the second signal ends at once
            server.force_exit = True
        stopping.set()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tasks = {asyncio.ensure_future(_load(service, on_ready))}
    loading = next(iter(tasks))
    loading.add_done_callback(lambda done: None if done.cancelled() or done.exception() is None else stop())

    def reload() -> None:
        tasks.add(asyncio.ensure_future(_replace(service)))

    loop.add_signal_handler(signal.SIGHUP, reload)
    let_through()
    if options.watch_s is not None:
        tasks.add(asyncio.ensure_future(watch(options.bundle, options.watch_s, service)))
    if accept_when_ready:
        await loading
    grpc = None if options.grpc_port is None else await _grpc(options, service, budget, token, stopping)
    await server.serve(sockets=[listener])
    if not stopping.is_set():
        stop()
    if server.force_exit:
        logger.warning("ended by a second signal; what was not answered is dropped")
        return
    if grpc is not None:
        await grpc
    await asyncio.to_thread(service.close)
    for task in tasks - {loading}:
        task.cancel()
    if loading.done():
        loading.result()
    logger.info("stopped; everything that was accepted is answered")


def _config(options: Options, app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=connection_class(options.header_timeout_s),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG if options.workers == 1 else 2,
        limit_concurrency=options.max_connections,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(options.drain_s),
        h11_max_incomplete_event_size=32 << 10,
        ssl_certfile=options.tls_cert,
        ssl_keyfile=options.tls_key,
    )


async def _load(service: Service, on_ready: Callable[[], None]) -> None:
    await asyncio.to_thread(service.start)
    on_ready()


async def _replace(service: Service) -> None:
    try:
        await asyncio.to_thread(service.replace)
    except Refusal:
        logger.warning("the first bundle is still being loaded; the reload is ignored")


async def watch(bundle: Path, seconds: float, service: Service) -> None:
    """Replace the bundle of `service` whenever its manifest is another file than before, or was written again."""
    known = _stamp(bundle)
    while True:
        await asyncio.sleep(seconds)
        found = _stamp(bundle)
        if found != known and service.state == "ready":
            known = found
            await _replace(service)


def _stamp(bundle: Path) -> tuple[int, int, int, int] | None:
    try:
        found = (bundle / "manifest.json").stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


async def _grpc(
    options: Options, service: Service, budget: Budget, token: bytes | None, stopping: asyncio.Event
) -> asyncio.Task[None]:
    """Start gRPC. The task ends when it has stopped, after `stopping`."""
    from stageproof.serving.http.protocol.grpc_service import start  # imported here: grpc takes 40 MB

    host = f"[{options.host}]" if ":" in options.host else options.host
    server, port = await start(service, budget, token, f"{host}:{options.grpc_port}")
    logger.info(f"gRPC on {host}:{port}")

    async def until_stopped() -> None:
        await stopping.wait()
        await server.stop(options.drain_s)

    return asyncio.create_task(until_stopped())
