"""`PeerContext`, the inputs of every peer: weights, files, number of threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.bundle.manifest import TENSOR, Artifact, Manifest


@dataclass(frozen=True)
class PeerContext:
    """The model and settings shared by all peers."""

    bundle: Path
    manifest: Manifest
    run: Path | None
    """The run that the bundle was made from, for PyTorch peers; None if not found."""
    threads: int
    device: str
    """``cpu`` or ``cuda``."""
    work: Path
    """Folder for compiled files."""
    slow_peers: bool
    """Whether to include peers that take minutes to compile or calibrate."""
    calibration: tuple[bytes, ...] = ()
    """Encoded images for int8 calibration, disjoint from the measured images."""

    def onnx(self, precision: str) -> Artifact | None:
        """The bundle's `.onnx` artifact in this precision that takes tensors; None if there is none."""
        found = (
            artifact
            for artifact in self.manifest.artifacts
            if artifact.format == "onnx" and artifact.precision == precision and artifact.takes == TENSOR
        )
        return next(found, None)


NO_RUN = "the bundle's run was not found in runs/: give it with --run"
SLOW_TO_PREPARE = "its preparation takes minutes: enable it with --slow-peers"
