"""Runtime library: predict the Alzheimer stage of brain-MRI slices with an exported bundle. Research use only.

    from runtime import Predictor
    predictor = Predictor("bundle")
    print(predictor.predict("scan.jpg").label)

Requires numpy, Pillow and one inference engine (onnxruntime, openvino or torch). The engine is imported when a
Predictor loads an artifact.
"""

import sys

if __name__ == "runtime":  # imported from a checkout by its short name
    from stageproof.checkout import one_module

    one_module(__name__)

import stageproof
from stageproof.runtime.errors import (
    AuditError,
    BackendError,
    BackendUnavailable,
    BundleError,
    CheckpointError,
    DatasetError,
    DependencyError,
    ExportError,
    ForkError,
    HubError,
    ImageError,
    InputError,
    IsolationError,
    NeuroStageError,
    ParityError,
    StageproofError,
    TrainingError,
    TrustError,
    VolumeError,
)
from stageproof.runtime.images.raster import read_image
from stageproof.runtime.inference.self_test import SelfTest
from stageproof.runtime.labels import LABELS, canonical_label
from stageproof.runtime.prediction import Prediction, StudyPrediction, Timings
from stageproof.runtime.predictor import Predictor
from stageproof.runtime.preprocess import InputSpec, preprocess

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
    "HubError",
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
    "VolumeError",
    "canonical_label",
    "preprocess",
    "read_image",
]
__version__ = stageproof.__version__

# `preprocess` is both a function and a module. The module is callable, so that one object provides both.
globals()["preprocess"] = sys.modules["stageproof.runtime.preprocess"]
