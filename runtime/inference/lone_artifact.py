"""Loading of a lone artifact, which has no manifest: its labels and input size come from its metadata."""

from __future__ import annotations

from pathlib import Path

from stageproof.runtime import backends
from stageproof.runtime.artifacts.inspection import standalone_code_message
from stageproof.runtime.artifacts.metadata import descriptions
from stageproof.runtime.artifacts.verified_bytes import CODE, ModelFile
from stageproof.runtime.bundle.manifest import TENSOR, ModelInfo
from stageproof.runtime.bundle.trust import DEFAULT_TRUST, Trust
from stageproof.runtime.errors import BackendUnavailable, BundleError, InputError, TrustError
from stageproof.runtime.inference.engine_settings import EngineSettings
from stageproof.runtime.inference.selection import why_unavailable
from stageproof.runtime.inference.serving import Serving, warm_up
from stageproof.runtime.labels import LABELS_FROM
from stageproof.runtime.serialization.json_fields import parse
from stageproof.runtime.text.hints import program


def open_artifact(path: Path, settings: EngineSettings, trust: Trust = DEFAULT_TRUST) -> Serving:
    """A lone exported artifact, loaded and run once. Raises TrustError for formats that contain code, even if trusted:
    without a manifest, the file cannot be verified."""
    if settings.precision is not None:
        raise InputError(
            f"precision is {settings.precision!r}, but {path} is a single file, which has one precision. Give a "
            "bundle, or no precision."
        )
    kind = backends.SUFFIXES.get(path.suffix)
    if kind is None:
        raise BundleError(
            f"{path} is not an artifact that this runtime reads ({', '.join(backends.SUFFIXES)}). Give a bundle "
            f"folder, or a file that {program('export')} wrote."
        )
    name = _backend_for(path.suffix, kind, settings)
    if kind in CODE:
        raise TrustError(standalone_code_message(path, kind))
    model = ModelFile.read(path)
    digest = model.digest
    trust.assert_lone(path, digest)
    _assert_takes_tensors(model, kind)
    engine = backends.load(
        name,
        model,
        precision="unknown",
        device=settings.device,
        threads=settings.threads,
        concurrent_calls=settings.concurrent_calls,
    )
    if engine.metadata is None:
        raise BundleError(
            f"{path} has no metadata (labels, input size). Give the bundle that contains it, or export it with "
            f"{program('export')}."
        )
    origin = parse(engine.metadata, str(path)).get("labels_from")
    serving = Serving(
        model=ModelInfo.from_json(engine.metadata, str(path)),
        engine=engine,
        name=name,
        precision="unknown",
        artifact=path,
        settings=settings,
        digest=digest,
        labels_from=origin if origin in LABELS_FROM else None,
    )
    warm_up(serving)
    return serving


def _backend_for(suffix: str, kind: str, settings: EngineSettings) -> str:
    """The required backend, or the first one that runs this format here. Raises InputError, BackendUnavailable."""
    runs = [name for name, module in backends.BACKENDS.items() if kind in module.FORMATS]
    if settings.backend is not None:
        if backends.backend_module(settings.backend).NAME not in runs:
            raise InputError(f"{settings.backend!r} does not run {suffix} files. These do: {', '.join(runs)}.")
        return settings.backend
    reasons = {name: why_unavailable(name, settings.device) for name in runs}
    usable = [name for name in runs if reasons[name] is None]
    if not usable:
        raise BackendUnavailable(
            f"No backend here runs {suffix} files: " + "; ".join(f"{n!r} {reason}" for n, reason in reasons.items())
        )
    return usable[0]


def _assert_takes_tensors(model: ModelFile, kind: str) -> None:
    """Raise BundleError for an artifact with built-in preprocessing."""
    for described in descriptions(model.path, kind, model.content) or []:
        takes = parse(described, str(model)).get("takes", TENSOR)
        if takes != TENSOR:
            raise BundleError(
                f"{model} takes {takes}: it has built-in preprocessing, for programs without this library. Give its "
                "bundle, or the artifact without built-in preprocessing."
            )
