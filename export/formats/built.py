"""What building one artifact gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stageproof.export.formats.measured_precision import Found
from stageproof.runtime.bundle.manifest import TENSOR


@dataclass(frozen=True)
class Built:
    """The files of one artifact, as they were in memory."""

    files: dict[str, str]
    """File name → SHA-256 before it touched the disk. The artifact itself first, then what it needs beside it."""
    requires: dict[str, str] = field(default_factory=dict)
    """What a compiled artifact was built for, as the manifest records it."""
    takes: str = TENSOR
    """What the artifact takes, as the manifest records it."""
    quantisation: dict[str, Any] | None = None
    """JSON-ready: what an artifact in 8 bits was calibrated and chosen on."""
    found: Found | None = None
    """The precision that was counted while building, where the format's `inspect` cannot open the file here."""
