"""Writes a bundle as a model repository of Triton Inference Server: configuration, Python backend, and the bundle."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from stageproof.export.bundle.writer import link
from stageproof.runtime.artifacts.entries import SIGNATURE
from stageproof.runtime.bundle.manifest import FILE
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import ExportError, InputError

NAME = "stageproof"
"""Name of the model in the repository, which is that of its folder."""
CONFIGURATION = "config.pbtxt"
MAX_BATCH_SIZE = 32
"""Largest batch that Triton forms, and most images in a request."""
QUEUE = 512
"""Requests that wait at most; further ones are refused as unavailable."""

_MARK = "# Written by stageproof export --triton."

_CONFIGURATION = """\
{mark} The model has the name of this folder.
backend: "python"
max_batch_size: {batch}
# Exactly one of the two inputs: encoded files, DICOM included, or decoded pixels [H, W, C].
input [
  {{ name: "image" data_type: TYPE_STRING dims: [ 1 ] reshape: {{ shape: [ ] }} optional: true }},
  {{ name: "pixels" data_type: TYPE_UINT8 dims: [ -1, -1, -1 ] optional: true }}
]
output [
  {{ name: "label" data_type: TYPE_STRING dims: [ 1 ] reshape: {{ shape: [ ] }} }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ {classes} ] }},
  {{ name: "status" data_type: TYPE_STRING dims: [ 1 ] reshape: {{ shape: [ ] }} }},
  {{ name: "reason" data_type: TYPE_STRING dims: [ 1 ] reshape: {{ shape: [ ] }} }},
  {{ name: "guard" data_type: TYPE_STRING dims: [ 1 ] reshape: {{ shape: [ ] }} }},
  {{ name: "model_digest" data_type: TYPE_STRING dims: [ 1 ] reshape: {{ shape: [ ] }} }}
]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
# A batch is what waited while the last one ran.
dynamic_batching {{
  max_queue_delay_microseconds: 0
  default_queue_policy {{ max_queue_size: {queue} timeout_action: REJECT allow_timeout_override: true }}
}}
# Empty: the fastest backend of the bundle that is installed, and all processors.
parameters [
  {{ key: "backend" value: {{ string_value: "" }} }},
  {{ key: "threads" value: {{ string_value: "" }} }}
]
"""


def check_repository(folder: Path, bundle: Path) -> None:
    """Raise InputError if `write_repository` could not write there; called before any work."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--triton {folder} is a file. Give the folder of a model repository, or a new one.")
    if folder.resolve().is_relative_to(bundle.resolve()):
        raise InputError(
            f"--triton {folder} is inside the bundle {bundle}, whose files are sealed. Give another folder."
        )
    target = folder / NAME
    if target.exists() and not _is_ours(target):
        raise InputError(
            f"{target} exists and was not written by --triton. Give another folder, or remove it. Nothing was written."
        )


def write_repository(bundle: Path, folder: Path) -> Path:
    """Path of the model `NAME` in the model repository `folder`: the verified bundle, in place of an earlier one.

    Other models of the repository are left as they are. The files of the bundle are hard links where possible.

    Raises InputError as `check_repository`; ExportError if it cannot be written, or no artifact of the bundle passed
    the gate in an engine; BundleError if the bundle was changed.
    """
    check_repository(folder, bundle)
    manifest = verified(bundle)
    if not any(artifact.checks for artifact in manifest.artifacts):
        raise ExportError(
            f"no artifact of {bundle} can be run, so there is nothing to serve. {folder} was not written."
        )
    target, hidden = folder / NAME, f".{NAME}.partial-"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=hidden, dir=folder))
        try:
            new, old = work / "new", work / "old"
            for file in (FILE, *(entry.file for entry in manifest.files), *_signature(bundle)):
                link(bundle / file, new / "1" / "bundle" / file)
            verified(new / "1" / "bundle")
            shutil.copyfile(Path(__file__).with_name("model.py"), new / "1" / "model.py")
            (new / CONFIGURATION).write_text(_configuration(len(manifest.model.labels)), encoding="utf-8")
            _make_readable(new)
            if target.exists():
                target.rename(old)
            try:
                new.rename(target)
            except OSError:
                if old.exists():
                    old.rename(target)
                raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ExportError(f"{target} cannot be written: {error}. Give another --triton.") from error
    return target


def _configuration(classes: int) -> str:
    return _CONFIGURATION.format(mark=_MARK, batch=MAX_BATCH_SIZE, classes=classes, queue=QUEUE)


def _signature(bundle: Path) -> list[str]:
    return [SIGNATURE] if (bundle / SIGNATURE).is_file() else []


def _is_ours(target: Path) -> bool:
    path = target / CONFIGURATION
    return path.is_file() and path.read_text(encoding="utf-8", errors="replace").startswith(_MARK)


def _make_readable(model: Path) -> None:
    """Let every user read what was made here, as the server may be another one. The bundle's files keep their modes."""
    version = model / "1"
    for folder in (model, version, *(path for path in version.rglob("*") if path.is_dir())):
        folder.chmod(0o755)
    for file in (model / CONFIGURATION, version / "model.py"):
        file.chmod(0o644)
