"""Which layers of a network Grad-CAM can use: those whose output is a map of channels, the last first."""

from __future__ import annotations

from collections.abc import Iterable

from stageproof.runtime.errors import InputError

LAYERS: dict[str, tuple[str, ...]] = {
    "resnet34-gray": ("layer3", "layer2", "layer1"),
}
"""Architecture → its layers, from the last that still has a height and a width to the finest that is used instead."""
_RESNET = ("layer4", "layer3", "layer2")
_FAMILIES: dict[str, tuple[str, ...]] = {
    "resnet": _RESNET,
    "resnext": _RESNET,
    "wide_resnet": _RESNET,
    "densenet": ("features.denseblock4", "features.denseblock3", "features.denseblock2", "features.denseblock1"),
    "regnet": tuple(f"trunk_output.block{index}" for index in (4, 3, 2, 1)),
    "shufflenet": ("conv5", "stage4", "stage3", "stage2"),
    "googlenet": ("inception5b", "inception4e", "inception3b"),
    "inception": ("Mixed_7c", "Mixed_6e", "Mixed_5d"),
}
"""First part of torchvision's names → layers."""
_NUMBERED = {
    **dict.fromkeys(("alexnet", "convnext", "efficientnet", "mobilenet", "squeezenet", "vgg"), "features"),
    "mnasnet": "layers",
}
"""First part of torchvision's names → the sequence whose members are the layers."""
_ATTENTION = ("vit", "swin", "maxvit")


def layers_of(architecture: str, modules: Iterable[str]) -> tuple[str, ...]:
    """The layers, last first. modules: names of all modules of the network.

    Raises InputError for networks of attention between patches, whose layers have no maps of channels, and for an
    architecture that is not known.
    """
    if architecture in LAYERS:
        return LAYERS[architecture]
    if architecture.startswith(_ATTENTION):
        raise InputError(
            f"Grad-CAM needs the channel maps of a convolutional network; {architecture} computes attention between "
            "patches. Explain a convolutional network, such as convnext_tiny."
        )
    for start, layers in _FAMILIES.items():
        if architecture.startswith(start):
            return layers
    for start, above in _NUMBERED.items():
        if architecture.startswith(start):
            parts = (name.split(".") for name in modules)
            numbers = {int(name[1]) for name in parts if len(name) > 1 and name[0] == above and name[1].isdigit()}
            return tuple(f"{above}.{number}" for number in sorted(numbers, reverse=True))
    known = ", ".join(f"{start}…" for start in (*_FAMILIES, *_NUMBERED))
    raise InputError(f"Grad-CAM supports resnet34-gray and torchvision's {known}; the model is {architecture!r}.")
