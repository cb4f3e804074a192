"""BentoML with its adaptive batching: one worker that runs a batch with all threads.

https://docs.bentoml.com/en/latest/get-started/adaptive-batching.html: batchable, max_batch_size and max_latency_ms; the
window between requests is what its dispatcher learns from the load.
https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html: workers; one, whose session uses all
processors. Images are Base64 in JSON.
"""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

import bentoml

from .pipeline import HOST, Pipeline, Settings

settings = Settings.read()


@bentoml.service(workers=1, traffic={"timeout": 60}, metrics={"enabled": False})
class Stages:
    """POST /predict with {"images": [Base64]}."""

    def __init__(self) -> None:
        self.pipeline = Pipeline(settings)

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=settings.batch, max_latency_ms=10_000)
    def predict(self, images: list[str]) -> list[dict[str, Any]]:
        """One answer for each image."""
        return self.pipeline.answers([base64.b64decode(image) for image in images])


def serve() -> None:
    """Serve until the process is ended, by BentoML's own command."""
    service = "serving_peers.bentoml_server:Stages"
    words = ["-m", "bentoml", "serve", service, "--host", HOST, "--port", str(settings.port)]
    os.execv(sys.executable, [sys.executable, *words])
