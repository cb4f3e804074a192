"""Model files, inspected as bytes before an engine loads them."""
