"""PyTriton: the Triton Inference Server, in C++, with the pipeline in this process and Triton's dynamic batcher.

https://triton-inference-server.github.io/pytriton/latest/binding_models and …/decorators: `batch`, ModelConfig,
max_batch_size and DynamicBatcher; by default it delays no request: a batch is what waited for the one before it.
https://triton-inference-server.github.io/pytriton/latest/initialization: TritonConfig.
"""

from __future__ import annotations

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from .pipeline import HOST, NAME, Pipeline, Settings


def serve() -> None:
    """Serve until the process is ended."""
    settings = Settings.read()
    pipeline = Pipeline(settings)

    @batch
    def predict(image: np.ndarray) -> dict[str, np.ndarray]:
        rows = pipeline.probabilities([bytes(one) for one in image[:, 0]])
        labels = [[label.encode()] for label in pipeline.labels(rows)]
        return {"label": np.array(labels, np.object_), "probabilities": rows}

    config = TritonConfig(
        http_address=HOST, http_port=settings.port, allow_grpc=False, allow_metrics=False, log_verbose=0
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=NAME,
            infer_func=predict,
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[
                Tensor(name="label", dtype=bytes, shape=(1,)),
                Tensor(name="probabilities", dtype=np.float32, shape=(len(settings.labels),)),
            ],
            config=ModelConfig(max_batch_size=settings.batch, batcher=DynamicBatcher()),
            strict=False,
        )
        triton.serve()
