"""`Built`, the result of building one artifact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stageproof.export.formats.measured_precision import Found
from stageproof.runtime.bundle.manifest import TENSOR


@dataclass(frozen=True)
class Built:
    """The files of one artifact and their metadata."""

    files: dict[str, str]
    """File name → SHA-256 of its content in memory. The artifact itself first, then additional files."""
    requires: dict[str, str] = field(default_factory=dict)
    """Requirements of a compiled artifact, such as GPU and engine version, for the manifest."""
    takes: str = TENSOR
    """Input of the artifact, for the manifest."""
    quantisation: dict[str, Any] | None = None
    """Data that an 8-bit artifact was calibrated and its layers selected on, JSON-ready."""
    found: Found | None = None
    """Precision counted while building, for formats whose `inspect` cannot open the file on this machine."""
