"""Grad-CAM heat maps of a bundle's float32 network."""
