"""Stageproof runtime: predict the Alzheimer stage of brain-MRI slices with an exported bundle. Research use only.

    from runtime import Predictor
    predictor = Predictor("bundle")
    print(predictor.predict("scan.jpg").label)

Needs numpy, Pillow and one engine (onnxruntime, openvino or torch); imports the engine only when one is loaded.
"""

import sys

from runtime.errors import (
    AuditError,
    BackendError,
    BackendUnavailable,
    BundleError,
    CheckpointError,
    DatasetError,
    DependencyError,
    ExportError,
    ForkError,
    ImageError,
    InputError,
    IsolationError,
    NeuroStageError,
    ParityError,
    StageproofError,
    TrainingError,
    TrustError,
)
from runtime.images import read_image
from runtime.labels import LABELS, canonical_label
from runtime.prediction import Prediction, StudyPrediction, Timings
from runtime.predictor import Predictor
from runtime.preprocess import InputSpec, preprocess
from runtime.selftest import SelfTest

__all__ = [
    "LABELS",
    "AuditError",
    "BackendError",
    "BackendUnavailable",
    "BundleError",
    "CheckpointError",
    "DatasetError",
    "DependencyError",
    "ExportError",
    "ForkError",
    "ImageError",
    "InputError",
    "InputSpec",
    "IsolationError",
    "NeuroStageError",
    "ParityError",
    "Prediction",
    "Predictor",
    "SelfTest",
    "StageproofError",
    "StudyPrediction",
    "Timings",
    "TrainingError",
    "TrustError",
    "canonical_label",
    "preprocess",
    "read_image",
]
__version__ = "0.1.0"

# The name is a function's and the module's: the module, which can be called as the function, serves both.
globals()["preprocess"] = sys.modules["runtime.preprocess"]
