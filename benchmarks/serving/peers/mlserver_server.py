"""MLServer with its adaptive batching and one inference worker.

https://docs.seldon.ai/mlserver/user-guide/adaptive-batching: max_batch_size and max_batch_time.
https://docs.seldon.ai/mlserver/user-guide/parallel-inference: parallel_workers, 1 by default: inference runs beside the
process that answers requests.
https://docs.seldon.ai/mlserver/user-guide/content-type: BYTES with the content type `base64` in Open Inference JSON.
"""

from __future__ import annotations

import asyncio

from mlserver import MLModel, MLServer, ModelSettings
from mlserver import Settings as ServerSettings
from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from .pipeline import HOST, NAME, WAIT_S, Pipeline, Settings


class Model(MLModel):
    """Input `image`, BYTES [N]; outputs `label`, BYTES [N], and `probabilities`, FP32 [N, classes]."""

    async def load(self) -> bool:
        """Load the network in the worker."""
        self.pipeline = Pipeline(Settings.read())
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One answer for each image."""
        rows = self.pipeline.probabilities(Base64Codec.decode_input(payload.inputs[0]))
        labels = self.pipeline.labels(rows)
        outputs = [StringCodec.encode_output("label", labels), NumpyCodec.encode_output("probabilities", rows)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def serve() -> None:
    """Serve until the process is ended."""
    asyncio.run(_serve(Settings.read()))


async def _serve(settings: Settings) -> None:
    server = MLServer(
        ServerSettings(
            host=HOST,
            http_port=settings.port,
            grpc_port=settings.port + 1,
            metrics_endpoint=None,
            parallel_workers=1,
            debug=False,
            use_structured_logging=False,
        )
    )
    model = ModelSettings(
        name=NAME, implementation=Model, max_batch_size=settings.batch, max_batch_time=WAIT_S, parameters={}
    )
    await server.start([model])
