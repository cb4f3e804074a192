"""Ray Serve: a Predictor in every replica. The body of a request is an encoded image or a DICOM file; JSON comes back.

    serve run ray_serve:application bundle=/path/of/the/bundle

Needs ray[serve], stageproof and an inference engine. The replicas keep no state: any of them answers any request. For
the Open Inference Protocol, put `stageproof serve` or Triton in its place.
"""

from __future__ import annotations

import asyncio

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse

MOST_BYTES = 64 << 20
CPUS = 2


@serve.deployment(num_replicas=1, max_ongoing_requests=64, ray_actor_options={"num_cpus": CPUS})
class Stage:
    def __init__(self, bundle: str) -> None:
        from stageproof.runtime import Predictor

        # In the replica: an engine does not survive a fork or pickling.
        self._predictor = Predictor(bundle, threads=CPUS, optimize_for="throughput", self_test=True)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.0)
    async def _answers(self, images: list[bytes]) -> list[dict]:
        # In a thread: the replica goes on reading requests.
        predictions = await asyncio.to_thread(self._predictor.predict_batch, images)
        return [prediction.to_dict() for prediction in predictions]

    async def __call__(self, request: Request) -> JSONResponse:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return JSONResponse({"error": f"the body has more than {MOST_BYTES} bytes."}, 413)
        if not body:
            return JSONResponse({"error": "the body is empty; expected an encoded image."}, 400)
        return JSONResponse(await self._answers(bytes(body)))


def application(given: dict[str, str]) -> serve.Application:
    """The application; `given`, the arguments of `serve run`, has the path of the bundle."""
    return Stage.bind(given["bundle"])
