"""`PredictionBuilder`: computes predictions from prepared images and the engine's logits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stageproof.runtime.inference.input_batches import Prepared, Rows, fill
from stageproof.runtime.model_info import ModelInfo
from stageproof.runtime.prediction import Prediction, Timings, unsure
from stageproof.runtime.softmax import probabilities


class PredictionBuilder:
    """Computes the predictions of a batch. Thread-safe."""

    def __init__(self, model: ModelInfo, backend: str, precision: str, abstain_below: float, guarded: bool) -> None:
        self._model, self._backend, self._precision = model, backend, precision
        self._abstain_below, self._guarded = abstain_below, guarded
        self._names = model.classes.names

    def of(
        self, batch: list[Prepared], spare: Rows, logits_of: Callable[[np.ndarray], tuple[np.ndarray, float]]
    ) -> list[Prediction]:
        """One prediction per item of the batch, in order.

        logits_of: (N, C, H, W) float32 → logits, and the engine's time in milliseconds.
        """
        rows = spare.take(len(batch))
        count, normalise_ms = fill(rows, batch, self._model.input)
        answered: list[list[float]] = []
        engine_ms = 0.0
        if count:
            logits, engine_ms = logits_of(rows[:count])
            answered = probabilities(logits, self._model.temperature).tolist()
        spare.give_back(rows)
        each = iter(answered)
        return [
            self.prediction(one, None)
            if one.pixels is None
            else self.prediction(one, next(each), normalise_ms, engine_ms / count)
            for one in batch
        ]

    def prediction(
        self, prepared: Prepared, answer: list[float] | None, normalise_ms: float = 0.0, inference_ms: float = 0.0
    ) -> Prediction:
        """The prediction for one image. answer: probabilities in the order of the model's outputs; None if rejected."""
        by_label = {} if answer is None else dict(zip(self._model.labels, answer, strict=True))
        top = max(by_label, key=by_label.__getitem__) if by_label else None
        code, reason = prepared.code, prepared.reason
        if top is not None and by_label[top] < self._abstain_below:
            code, reason = "unsure", unsure(by_label[top], self._abstain_below)
        label = None if code else top
        return Prediction(
            status="rejected" if top is None else "abstained" if code else "ok",
            label=label,
            cdr=None if label is None else self._model.classes.cdr(label),
            probability=None if label is None else by_label[label],
            probabilities={name: by_label[name] for name in self._names} if by_label else {},
            code=code,
            reason=reason,
            guard=prepared.guard if self._guarded else "none",
            transforms=prepared.transforms,
            warnings=prepared.warnings,
            backend=self._backend,
            precision=self._precision,
            model_digest=self._model.digest,
            timings=Timings(prepared.read_ms, prepared.preprocess_ms + normalise_ms, inference_ms),
        )
