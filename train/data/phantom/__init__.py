"""Synthetic axial brain slices whose ventricles and sulci widen with the stage: the data that ships with Stageproof."""

from stageproof.train.data.phantom.slices import draw_slice, phantom_samples

__all__ = ["draw_slice", "phantom_samples"]
