"""The slices that a run is evaluated on, and the predictions of the run for them."""
