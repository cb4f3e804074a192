"""Is an image in-distribution? Cheap checks, then the distance from the training slices."""

from stageproof.runtime.guard.ood_guard import Guard, fit

__all__ = ["Guard", "fit"]
