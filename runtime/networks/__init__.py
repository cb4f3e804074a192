"""Networks by name: what identifies one, and torchvision's built from it."""
