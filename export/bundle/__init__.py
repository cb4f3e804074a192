"""Writes bundles atomically: manifest, artifacts that passed the parity gate, guard, golden images, reports."""

from stageproof.export.bundle.writer import GOLDEN, REPORT, adopt, kept_rejections, link, reject, staged

__all__ = ["GOLDEN", "REPORT", "adopt", "kept_rejections", "link", "reject", "staged"]
