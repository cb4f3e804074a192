"""Grad-CAM of a bundle's float32 network over a slice."""
