"""What every peer is given: the same weights, the same files, the same threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.bundle.manifest import TENSOR, Artifact, Manifest


@dataclass(frozen=True)
class Given:
    """The model that all peers run."""

    bundle: Path
    manifest: Manifest
    run: Path | None
    """The run the bundle was made from, for the peers that start from PyTorch; None where it is not at hand."""
    threads: int
    device: str
    """``cpu`` or ``cuda``."""
    work: Path
    """Where a peer may keep what it compiles."""
    slow_peers: bool
    """Also the peers that take minutes to compile or calibrate."""
    calibration: tuple[bytes, ...] = ()
    """Encoded images that a peer may calibrate int8 on; none of them is answered for the clock."""

    def onnx(self, precision: str) -> Artifact | None:
        """The bundle's `.onnx` in this precision, taking tensors, if it has one."""
        found = (
            artifact
            for artifact in self.manifest.artifacts
            if artifact.format == "onnx" and artifact.precision == precision and artifact.takes == TENSOR
        )
        return next(found, None)


NO_RUN = "the bundle's run is not in runs/: name it with --run"
PATIENCE = "it takes minutes to prepare: --slow-peers"
