"""The slices that a run is evaluated on, and its predictions of them."""
