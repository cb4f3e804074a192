"""`ShardQueue`: which shard is next, and when a loss is not repeated."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

from stageproof.serving.archive.errors import ArchiveError

ATTEMPTS = 3
"""Workers that may be lost with the same shard before it is left out."""


class ShardQueue:
    """The shards that have no part yet."""

    def __init__(self, shards: Sequence[int], workers: int) -> None:
        self._waiting = deque(shards)
        self._lost: Counter[int] = Counter()
        self._in_a_row = 0
        self._most = ATTEMPTS * max(1, workers)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> int:
        """The next shard."""
        return self._waiting.popleft()

    def finished(self) -> None:
        """A shard was scored."""
        self._in_a_row = 0

    def lost(self, shard: int, reason: str) -> bool:
        """A worker was lost with this shard. Whether the shard is scored again, after the others.

        Raises ArchiveError after `ATTEMPTS` losses per worker without a finished shard in between.
        """
        self._lost[shard] += 1
        self.lost_before_a_shard(reason)
        again = self._lost[shard] < ATTEMPTS
        if again:
            self._waiting.append(shard)
        return again

    def lost_before_a_shard(self, reason: str) -> None:
        """A worker was lost before it had a shard. Raises as `lost`."""
        self._in_a_row += 1
        if self._in_a_row >= self._most:
            raise ArchiveError(
                f"{self._in_a_row} workers in a row ended before they finished a shard; the last one: {reason}. "
                "Finished parts are kept. Check the memory of the machine and the messages above, or take "
                "fewer --workers or a smaller --shard-images; then run the same command again."
            )
