"""The networks that can be trained: torchvision's classification networks, and the published one-channel ResNet34."""

from stageproof.runtime.networks.spec import NetworkSpec
from stageproof.train.networks.construction import ARCHITECTURES, build, construct, head_of, load_state

__all__ = ["ARCHITECTURES", "NetworkSpec", "build", "construct", "head_of", "load_state"]
