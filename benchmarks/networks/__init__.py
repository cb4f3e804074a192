"""Which networks train and export to which formats: `python -m benchmarks.networks`."""

NETWORKS = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v3_large",
    "convnext_tiny",
    "vit_b_16",
)
"""The networks of the table in docs/networks.md."""
