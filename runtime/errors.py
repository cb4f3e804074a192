"""Exceptions that Stageproof raises.

    StageproofError
    ├── InputError            invalid image, array or argument
    │   ├── ImageError        ... the source is not readable as a single image
    │   └── VolumeError       ... the source is not one T1-weighted series of a head that volumes accept
    ├── BundleError           missing, modified or malformed bundle or artifact
    │   └── TrustError        ... untrusted code, or signature or digest that differs from the required one
    ├── DependencyError       optional package of a command not installed
    ├── BackendUnavailable    requested engine not installed, or unable to run here
    ├── BackendError          installed engine failed
    ├── IsolationError        no decoder process can be started
    ├── ForkError             Predictor loaded before the process was forked
    ├── AuditError            audit log not writable, or verification failed
    ├── DatasetError          training images, labels or patient groups
    ├── CheckpointError       weights or run directory
    ├── TrainingError         training run stopped
    ├── HubError              Hugging Face Hub not reachable, or it failed
    ├── ExportError           format not exported
    └── ParityError           artifact failed the parity gate

Each message states what happened, the actual and the expected value, and what to do next.
"""

from __future__ import annotations


class StageproofError(Exception):
    """Base class of all exceptions of Stageproof."""


NeuroStageError = StageproofError
"""Name of the base class in version 0.1."""


class InputError(StageproofError, ValueError):
    """An argument, array or image is not valid for this bundle."""


class ImageError(InputError):
    """The source cannot be read as a single image."""


class VolumeError(InputError):
    """A series of images is refused as a volume.

    `status` names the reason in one word for programs, such as ``slice_gap`` (`runtime.volume.statuses`).
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[VolumeError], tuple[str, str]]:
        return type(self), (self.status, str(self))


def without_traceback(error: ImageError) -> ImageError:
    """`error` without traceback, cause and context, whose frames would keep whole files in memory."""
    error.__cause__ = error.__context__ = error.__traceback__ = None
    return error


class BundleError(StageproofError):
    """A bundle or lone artifact is missing, modified, newer than this runtime, or malformed."""


class TrustError(BundleError):
    """A file that can run code is not declared trusted, or the bundle lacks the required signature or digest."""


class DependencyError(StageproofError, ImportError):
    """An optional Python package that the command requires is not installed."""


class BackendUnavailable(StageproofError):  # noqa: N818  (named after the state that users search for)
    """The requested engine is not installed, or cannot run the artifact."""


class BackendError(StageproofError):
    """An installed engine failed to load or run an artifact."""


class IsolationError(StageproofError):
    """No process can be started to decode images, and ``isolate=True`` requires one."""


class ForkError(StageproofError):
    """A Predictor is used in a child process that was forked after loading; engines do not survive a fork."""


class AuditError(StageproofError):
    """The audit log cannot be written or read, or its verification failed."""


class DatasetError(StageproofError):
    """Training images, their labels or their patient groups cannot be used."""


class CheckpointError(StageproofError):
    """Weights or a run directory cannot be read or written, or do not match the model."""


class TrainingError(StageproofError):
    """A training run stopped."""


class HubError(StageproofError):
    """The Hugging Face Hub cannot be reached, has failed, or did not do what it was asked."""


class ExportError(StageproofError):
    """A format could not be exported."""


class ParityError(StageproofError):
    """An artifact's predictions differ from the reference's by more than the tolerance."""
