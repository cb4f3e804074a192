"""A bundle is written in one step, and served only with what passed the gate."""

from stageproof.export.bundle.writer import GOLDEN, REPORT, adopt, kept_rejections, link, reject, staged

__all__ = ["GOLDEN", "REPORT", "adopt", "kept_rejections", "link", "reject", "staged"]
