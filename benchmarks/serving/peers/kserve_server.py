"""KServe's Python model server, without batching: its batcher is a proxy for Kubernetes, not a part of this server.

https://kserve.github.io/website/docs/model-serving/predictive-inference/frameworks/custom-predictor/custom-predictor: a
`Model` with `predict`; a coroutine, so that the server answers others meanwhile.
https://kserve.github.io/website/latest/modelserving/data_plane/v2_protocol: Open Inference in JSON. Its binary tensor
extension accepts BYTES that are UTF-8 text alone (0.21), so the image is Base64 text.
Inferences run in a pool with a thread for each processor, in one process (`workers`).
"""

from __future__ import annotations

import asyncio
import base64
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kserve
import kserve.model_server
from kserve.protocol.rest.server import RESTServer

from .pipeline import HOST, NAME, Pipeline, Settings


class Stages(kserve.Model):
    """Input `image`, BYTES [N]; outputs `label`, BYTES [N], and `probabilities`, FP32 [N, classes]."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(NAME)
        self.pipeline = Pipeline(settings)
        self.pool = ThreadPoolExecutor(settings.threads)
        self.ready = True

    async def predict(
        self, payload: kserve.InferRequest, headers: Any = None, response_headers: Any = None
    ) -> kserve.InferResponse:
        """One answer for each image."""
        images = [base64.b64decode(text) for text in payload.inputs[0].data]
        rows = await asyncio.get_running_loop().run_in_executor(self.pool, self.pipeline.probabilities, images)
        label = kserve.InferOutput("label", [len(rows)], "BYTES", data=self.pipeline.labels(rows))
        probabilities = kserve.InferOutput("probabilities", list(rows.shape), "FP32", data=rows.ravel().tolist())
        return kserve.InferResponse(payload.id or "", NAME, [label, probabilities])


class _Loopback(RESTServer):
    """KServe's server listens on all addresses, and has no option for that."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.config.host = HOST


def serve() -> None:
    """Serve until the process is ended."""
    settings = Settings.read()
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)  # no line for each request, as with the others
    kserve.model_server.RESTServer = _Loopback
    server = kserve.ModelServer(http_port=settings.port, enable_grpc=False, workers=1, enable_latency_logging=False)
    server.start([Stages(settings)])
