"""Public names of `runtime.bundle.manifest`, re-exported under their import path of version 0.1."""

from stageproof.runtime.bundle.manifest import *  # noqa: F403
from stageproof.runtime.bundle.manifest import __all__ as __all__
