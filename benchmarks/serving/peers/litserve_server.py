"""LitServe with its batching: one worker that runs a batch with all threads.

https://lightning.ai/docs/litserve/features/batching: max_batch_size and batch_timeout of the LitAPI.
https://lightning.ai/docs/litserve/api-reference/litserver: accelerator, workers_per_device, and fast_queue, which its
documentation recommends for high rates (ZeroMQ in place of a multiprocessing queue).
The image is Base64 in JSON, as in its documentation's example for images.
"""

from __future__ import annotations

import base64
from typing import Any

import litserve

from .pipeline import HOST, WAIT_S, Pipeline, Settings


class Api(litserve.LitAPI):
    """POST /predict with {"image": Base64}."""

    def setup(self, device: str) -> None:
        """Load the network in the worker."""
        self.pipeline = Pipeline(Settings.read())

    def decode_request(self, request: dict[str, str], **_: Any) -> bytes:
        """The bytes of the image."""
        return base64.b64decode(request["image"])

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """The default stacks arrays; the pipeline does so after decoding."""
        return list(inputs)

    def predict(self, images: list[bytes], **_: Any) -> list[dict[str, Any]]:
        """One answer for each image."""
        return self.pipeline.answers(images)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers, one by one."""
        return output

    def encode_response(self, output: dict[str, Any], **_: Any) -> dict[str, Any]:
        """The answer as JSON."""
        return output


def serve() -> None:
    """Serve until the process is ended."""
    settings = Settings.read()
    api = Api(max_batch_size=settings.batch, batch_timeout=WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(host=HOST, port=settings.port, log_level="warning", access_log=False, generate_client_file=False)
