"""Guard: out-of-distribution detection by simple image checks and the distance from the training slices."""

from stageproof.runtime.guard.ood_guard import Guard, fit

__all__ = ["Guard", "fit"]
