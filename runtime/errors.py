"""Every error that Stageproof raises on purpose.

    StageproofError
    ├── InputError            an image, array or argument that the caller handed over
    │   └── ImageError        ... that cannot be read as one still image
    ├── BundleError           a bundle or lone artifact that cannot be trusted or understood
    │   └── TrustError        ... that runs code nobody vouched for, or is not signed by, or not, what was named
    ├── DependencyError       an optional package that a command needs is not installed
    ├── BackendUnavailable    the engine asked for is not installed or cannot run here
    ├── BackendError          the engine is here and failed
    ├── IsolationError        no process can be started to decode images in
    ├── ForkError             a Predictor that was loaded before the process was forked
    ├── AuditError            the audit log cannot be written, or does not hold
    ├── DatasetError          training images, labels or patient groups
    ├── CheckpointError       weights or a run directory
    ├── TrainingError         a training run that had to stop
    ├── ExportError           a format that could not be written
    └── ParityError           an artifact that does not decide as its reference does

Each message says what happened, what was got, what was expected, and what to do next.
"""

from __future__ import annotations


class StageproofError(Exception):
    """Base of every error below: catch this one to catch them all."""


NeuroStageError = StageproofError
"""The name in version 0.1."""


class InputError(StageproofError, ValueError):
    """What the caller handed over is not what this bundle takes."""


class ImageError(InputError):
    """The source cannot be read as one still image."""


def shed(error: ImageError) -> ImageError:
    """`error` without its traceback and the exceptions that led to it, whose frames keep whole files in memory."""
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


class BundleError(StageproofError):
    """A bundle or a lone artifact is missing, changed, newer than this runtime, or malformed."""


class TrustError(BundleError):
    """A file that may run code was not declared trusted, or the bundle is not the one whose key or digest was named."""


class DependencyError(StageproofError, ImportError):
    """An optional Python package that the command needs is not installed."""


class BackendUnavailable(StageproofError):  # noqa: N818  (the state, not the event, is what users look for)
    """The engine asked for is not installed here, or cannot run the artifact."""


class BackendError(StageproofError):
    """An engine that is installed failed to load or to run an artifact."""


class IsolationError(StageproofError):
    """No process can be started to decode images in, which is what was asked for."""


class ForkError(StageproofError):
    """A Predictor is used in a child of the process that loaded it: engines do not survive a fork."""


class AuditError(StageproofError):
    """The audit log cannot be written or read, or is not what was written."""


class DatasetError(StageproofError):
    """Training images, their labels or their patient groups cannot be used."""


class CheckpointError(StageproofError):
    """Weights or a run directory cannot be read, written, or do not fit the model."""


class TrainingError(StageproofError):
    """A training run had to stop."""


class ExportError(StageproofError):
    """A format could not be written."""


class ParityError(StageproofError):
    """An artifact does not decide as its reference does."""
