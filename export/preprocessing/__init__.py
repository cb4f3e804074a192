"""Artifacts that take pixels: the graph includes `runtime.preprocess`, for programs without this library.

Input of such an artifact: uint8 (N, H, W, C), any height and width, C = 1 (greyscale) or 3 (RGB).
"""

TAKES = "uint8 (N, H, W, 1 or 3)"
"""Input as recorded in the manifest and in the artifact's metadata."""
INPUT = "pixels"
"""Name of the input."""


def description(softmax: bool) -> dict[str, str]:
    """Additional metadata of such an artifact, beside its ModelInfo."""
    return {"takes": TAKES, "gives": "probabilities" if softmax else "logits"}
