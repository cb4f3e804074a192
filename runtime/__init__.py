"""NeuroStage runtime: predict the Alzheimer stage of brain-MRI slices with an exported bundle. Research use only.

    from runtime import Predictor
    predictor = Predictor("bundle")
    print(predictor.predict("scan.jpg").label)

Needs numpy, Pillow and one engine (onnxruntime, openvino or torch); imports the engine only when one is loaded.
"""

from runtime.errors import (
    AuditError,
    BackendError,
    BackendUnavailable,
    BundleError,
    CheckpointError,
    DatasetError,
    DependencyError,
    ExportError,
    ImageError,
    InputError,
    NeuroStageError,
    ParityError,
    TrainingError,
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
    "ImageError",
    "InputError",
    "InputSpec",
    "NeuroStageError",
    "ParityError",
    "Prediction",
    "Predictor",
    "SelfTest",
    "StudyPrediction",
    "Timings",
    "TrainingError",
    "canonical_label",
    "preprocess",
    "read_image",
]
__version__ = "0.1.0"
