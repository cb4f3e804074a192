"""Ray Serve with its request batching: one replica that runs a batch with all threads.

https://docs.ray.io/en/latest/serve/advanced-guides/dyn-req-batch.html: max_batch_size and batch_wait_timeout_s.
https://docs.ray.io/en/latest/serve/advanced-guides/performance.html: max_ongoing_requests above what a batch needs, and
work that blocks outside of the event loop.
A cluster of this machine alone, without dashboard and usage statistics.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import ray
from ray import serve as ray_serve
from starlette.requests import Request

from .pipeline import HOST, WAIT_S, Pipeline, Settings

settings = Settings.read()


@ray_serve.deployment(num_replicas=1, max_ongoing_requests=8 * settings.batch, ray_actor_options={"num_cpus": 1})
class Stages:
    """POST / with the bytes of an image."""

    def __init__(self) -> None:
        self.pipeline = Pipeline(settings)

    @ray_serve.batch(max_batch_size=settings.batch, batch_wait_timeout_s=WAIT_S)
    async def answers(self, images: list[bytes]) -> list[dict[str, Any]]:
        """One answer for each image."""
        return await asyncio.to_thread(self.pipeline.answers, images)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.answers(await request.body())


def serve() -> None:
    """Serve until SIGTERM."""
    ray.init(num_cpus=settings.threads, include_dashboard=False, _node_ip_address=HOST, log_to_driver=False)
    ray_serve.start(http_options=ray_serve.HTTPOptions(host=HOST, port=settings.port))
    ray_serve.run(Stages.bind(), name="stages", route_prefix="/")  # type: ignore[attr-defined]
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    ray_serve.shutdown()
    ray.shutdown()
