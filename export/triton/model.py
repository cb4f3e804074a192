"""Triton's Python backend for a bundle: what `stageproof.runtime.Predictor` predicts, guard and abstention included.

`export.triton.repository` copies this file into a model repository, the bundle to the folder ``bundle`` beside it. It
needs numpy, stageproof and an inference engine in the Python environment of the server, and nothing else.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

PYTHON_PATH = Path(__file__).with_name("python_path.txt")
"""Optional: folders to import packages from, one a line, such as that of a virtual environment of the same Python.
Triton isolates its interpreter, so that PYTHONPATH and an active virtual environment have no effect."""
if PYTHON_PATH.is_file():  # now: Triton imports numpy before it calls `initialize`
    sys.path += [line for line in PYTHON_PATH.read_text(encoding="utf-8").splitlines() if line]

TEXTS: dict[str, Callable[[Any], str]] = {
    "label": lambda one: one.label or "",
    "status": lambda one: one.status,
    "reason": lambda one: one.reason,
    "guard": lambda one: json.dumps(one.guard if isinstance(one.guard, str) else dict(one.guard)),
    "model_digest": lambda one: one.model_digest,
}
"""Output of type BYTES → its text for one prediction. A rejected image has an empty label and probabilities of 0."""
CHANNELS = (1, 3)


class TritonPythonModel:
    """The model; Triton makes one for each instance, in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load and self-test the bundle. The model is ready afterwards, and not at all if this raises an exception."""
        configuration = json.loads(args["model_config"])
        given = {name: one["string_value"] for name, one in configuration.get("parameters", {}).items()}
        import triton_python_backend_utils

        from stageproof.runtime import Predictor

        self._triton: Any = triton_python_backend_utils
        self._predictor = Predictor(
            Path(args["model_repository"]) / args["model_version"] / "bundle",
            backend=given.get("backend") or None,
            threads=int(given["threads"]) if given.get("threads") else None,
            device="cuda" if args["model_instance_kind"] == "GPU" else "cpu",
            optimize_for="throughput",
            self_test=True,
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response for each request of a batch; one that cannot be answered has an error and leaves the others."""
        images: list[list[Any]] = []
        errors: list[str] = []
        for request in requests:
            try:
                images.append(self._images(request))
                errors.append("")
            except ValueError as error:
                images.append([])
                errors.append(str(error))
        predictions = iter(self._predictor.predict_batch(image for listed in images for image in listed))
        return [
            self._error(error) if error else self._response(request, [next(predictions) for _ in listed])
            for request, listed, error in zip(requests, images, errors, strict=True)
        ]

    def _images(self, request: Any) -> list[Any]:
        """The images of the only input. Raises ValueError."""
        tensors = {name: self._triton.get_input_tensor_by_name(request, name) for name in ("image", "pixels")}
        given = {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}
        if len(given) != 1:
            raise ValueError(f"the request has {len(given)} inputs; expected exactly one of 'image' and 'pixels'.")
        [(name, values)] = given.items()
        if name == "image":
            if not values.size:
                raise ValueError(f"input 'image' has shape {list(values.shape)}; expected [N, 1], N at least 1.")
            return [bytes(value) for value in values.reshape(-1)]
        if values.shape[-1] not in CHANNELS or 0 in values.shape:
            raise ValueError(
                f"input 'pixels' has shape {list(values.shape)}; expected [N, H, W, C], each at least 1, C 1 or 3."
            )
        return [pixels[..., 0] if pixels.shape[-1] == 1 else pixels for pixels in values]

    def _response(self, request: Any, predictions: list[Any]) -> Any:
        import numpy as np

        labels = self._predictor.model.classes.names
        rows = [[one.probabilities.get(label, 0.0) for label in labels] for one in predictions]
        arrays: dict[str, Any] = {"probabilities": np.array(rows, np.float32)}
        for name, text in TEXTS.items():
            arrays[name] = np.array([text(one).encode() for one in predictions], object)
        requested = request.requested_output_names()
        return self._triton.InferenceResponse([self._triton.Tensor(name, arrays[name]) for name in requested])

    def _error(self, message: str) -> Any:
        error = self._triton.TritonError(message, self._triton.TritonError.INVALID_ARG)
        return self._triton.InferenceResponse(error=error)
