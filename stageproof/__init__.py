"""Stageproof: train, export, verify and embed a classifier of brain-MRI slices. Research use only.

In a wheel, `runtime`, `train`, `export`, `serving` and `benchmarks` are subpackages of this package. In a checkout they
are folders beside it, where `python -m train` and `from runtime import Predictor` also work: see `stageproof.checkout`.
"""

import logging
from pathlib import Path

__version__ = "0.2.0.dev0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a library prints nothing, warnings included

_HERE = Path(__file__).resolve().parent
IN_CHECKOUT = not (_HERE / "runtime").is_dir()
if IN_CHECKOUT:
    __path__.append(str(_HERE.parent))
