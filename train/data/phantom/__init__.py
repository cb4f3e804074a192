"""Synthetic axial brain slices (phantoms), whose ventricles and sulci widen with the stage."""

from stageproof.train.data.phantom.slices import draw_slice, phantom_samples

__all__ = ["draw_slice", "phantom_samples"]
