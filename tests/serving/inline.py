"""A third engine behind the seam of `serving.archive.engines`: one worker in this process. For tests that need none."""

from __future__ import annotations

from stageproof.serving.archive.worker import Scorer


class Inline:
    """Scores in the process of the caller."""

    def __init__(self, workers):
        self.workers = workers

    def once(self, function, job):
        """As `Engine.once`."""
        return function(job)

    def run(self, job, shards):
        """As `Engine.run`."""
        scorer = Scorer(job)
        for shard in shards:
            yield scorer.score(shard)

    def close(self):
        """As `Engine.close`."""
