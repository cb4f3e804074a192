"""Words of `python -m train` for tests in which any network serves."""

SMALLEST = ["--architecture", "shufflenet_v2_x0_5"]
"""0.4 million weights, with BatchNorm: an epoch over a few slices takes a fifth of the time of a ResNet's, and so do
its files."""
