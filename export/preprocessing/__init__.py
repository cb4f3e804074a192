"""Artifacts that take pixels: `runtime.preprocess` as a part of the graph, for programs without this library.

What such an artifact takes: uint8 (N, H, W, C), any height and width, C = 1 (grey) or 3 (red, green, blue).
"""

TAKES = "uint8 (N, H, W, 1 or 3)"
"""As the manifest and the artifact's own description say it."""
INPUT = "pixels"
"""Name of the input."""


def description(softmax: bool) -> dict[str, str]:
    """What such an artifact carries beside its ModelInfo."""
    return {"takes": TAKES, "gives": "probabilities" if softmax else "logits"}
