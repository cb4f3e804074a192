"""Which distributions a bundle needs for prediction: the runtime's, an inference engine's, and those they require."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from packaging.utils import canonicalize_name

from stageproof.export.sbom.distributions import Distribution, provider
from stageproof.runtime.backends import BACKENDS, pytorch
from stageproof.runtime.backends.networks import is_known
from stageproof.runtime.bundle.manifest import Artifact, Manifest

RUNTIME = {"numpy": "arrays, preprocessing and probabilities", "pillow": "decodes image files"}
"""Distributions that `stageproof.runtime` requires → what for. A test compares them with setup.cfg."""


class Use(Enum):
    """Whether prediction needs a distribution; the values are the scopes of CycloneDX."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    """One of several engines, any of which runs the bundle, or required by one of them."""
    EXPORT = "excluded"
    """Found where the bundle was exported; prediction does not need it."""


@dataclass(frozen=True)
class Need:
    """How a bundle uses a distribution."""

    use: Use
    purpose: str
    where: str
    """Part of the project or artifacts that use it, or the distribution that requires it."""
    indirect: bool = False
    """Whether only another distribution requires it."""


def needs(manifest: Manifest, found: Mapping[str, Distribution]) -> dict[str, Need]:
    """Canonical name → how prediction with the bundle uses the distribution.

    found: canonical name → installed distribution. Engines that are not installed here are included: the parity check
    of a kept artifact may have run elsewhere.
    """
    needed = {name: Need(Use.REQUIRED, purpose, "stageproof.runtime") for name, purpose in RUNTIME.items()}
    engines = _engines(manifest.artifacts)
    use = Use.REQUIRED if len(engines) == 1 else Use.OPTIONAL
    for backend, files in engines.items():
        for modules in _modules(backend, manifest.model.architecture):
            name = _distribution(modules)
            used = needed[name].where if name in needed else ""
            where = ", ".join(dict.fromkeys([*(used.split(", ") if used else []), *files]))
            needed[name] = Need(use, "inference engine", where)
    for name in tuple(needed):
        _add_required(name, needed[name].use, found, needed)
    return needed


def _engines(artifacts: Iterable[Artifact]) -> dict[str, list[str]]:
    """Backend → the artifacts that passed the parity gate in it."""
    engines: dict[str, list[str]] = {}
    for artifact in artifacts:
        for check in artifact.checks:
            if check.backend in BACKENDS:
                engines.setdefault(check.backend, []).append(artifact.file)
    return engines


def _modules(backend: str, architecture: str) -> list[str]:
    """The modules that the backend imports, as in its REQUIRES."""
    builds = backend == pytorch.NAME and not is_known(architecture)
    return [*BACKENDS[backend].REQUIRES, *(["torchvision"] if builds else [])]


def _distribution(modules: str) -> str:
    """Canonical name of the distribution that provides one of the modules (a|b); the first module's if none does."""
    names = modules.split("|")
    return next((name for module in names if (name := provider(module))), str(canonicalize_name(names[0])))


def _add_required(name: str, use: Use, found: Mapping[str, Distribution], needed: dict[str, Need]) -> None:
    """Add what `name` requires, and what that requires, to `needed`. Required by one, it is no longer optional."""
    for required in found[name].requires if name in found else ():
        known = needed.get(required)
        if known is not None and (known.use is use or known.use is Use.REQUIRED):
            continue
        purpose = found[required].summary if required in found else ""
        new = Need(use, purpose, f"required by {name}", indirect=True)
        needed[required] = replace(known, use=use) if known else new
        _add_required(required, use, found, needed)
