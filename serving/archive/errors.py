"""`ArchiveError`: scoring an archive stopped before every input had a row."""

from __future__ import annotations

from stageproof.runtime.errors import StageproofError


class ArchiveError(StageproofError):
    """Work on an archive failed: output not writable, parts lost or incomplete. Finished parts are kept."""
