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
import ray.serve
from starlette.requests import Request

from .pipeline import HOST, WAIT_S, Pipeline, Settings

settings = Settings.read()


@ray.serve.deployment(num_replicas=1, max_ongoing_requests=8 * settings.batch, ray_actor_options={"num_cpus": 1})
class Stages:
    """POST / with the bytes of an image."""

    def __init__(self) -> None:
        self.pipeline = Pipeline(settings)

    @ray.serve.batch(max_batch_size=settings.batch, batch_wait_timeout_s=WAIT_S)
    async def answers(self, images: list[bytes]) -> list[dict[str, Any]]:
        """One answer for each image."""
        return await asyncio.to_thread(self.pipeline.answers, images)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.answers(await request.body())  # type: ignore[arg-type, return-value]


def serve() -> None:
    """Serve until SIGTERM."""
    ray.init(num_cpus=settings.threads, include_dashboard=False, _node_ip_address=HOST, log_to_driver=False)
    ray.serve.start(http_options=ray.serve.HTTPOptions(host=HOST, port=settings.port))
    ray.serve.run(Stages.bind(), name="stages", route_prefix="/")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    ray.serve.shutdown()
    ray.shutdown()
