"""The public names of `runtime.bundle.manifest`, under the path that they have had since version 0.1."""

from stageproof.runtime.bundle.manifest import *  # noqa: F403
from stageproof.runtime.bundle.manifest import __all__ as __all__
