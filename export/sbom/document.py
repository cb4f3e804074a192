"""CycloneDX 1.6 documents as JSON: of a bundle, and of an environment with or without a bundle's model.

The library builds, sorts and serialises the document. Its version 11 has no classes for model cards, so the card is
inserted as a JSON object afterwards; the tests validate the whole with the library's strict validator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.contrib.this.builders import this_component
from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseAcknowledgement
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from stageproof.export.sbom.distributions import Distribution
from stageproof.export.sbom.needs import Need, Use
from stageproof.runtime import __version__
from stageproof.runtime.bundle.manifest import Artifact, Document, Golden, Manifest

NAME = "stageproof"
MODEL = "model"
"""`bom-ref` of the model."""
_HASHES = {
    "md5": HashAlgorithm.MD5,
    "sha1": HashAlgorithm.SHA_1,
    "sha256": HashAlgorithm.SHA_256,
    "sha384": HashAlgorithm.SHA_384,
    "sha512": HashAlgorithm.SHA_512,
}
_SERIAL = uuid5(NAMESPACE_URL, "stageproof:sbom")


def bundle_document(
    manifest: Manifest,
    found: Iterable[Distribution],
    needed: Mapping[str, Need],
    card: Mapping[str, Any],
    created: str,
) -> dict[str, Any]:
    """The document of a bundle: the model with its card and files, what it needs, and what the environment has.

    manifest: with the files to list. found: the installed distributions. needed: of `needs`. card: the `modelCard`.
    created: UTC, as ``2026-01-31T12:00:00Z``.
    """
    model = _model(manifest)
    components = _components(found, needed)
    direct = [NAME, *(key for key, need in needed.items() if not need.indirect)]
    bom = _bom(created, model, components, found)
    bom.register_dependency(model, [components[key] for key in direct])
    content = _serialised(bom)
    content["metadata"]["component"]["modelCard"] = dict(card)
    return _with_serial(content)


def environment_document(
    found: Iterable[Distribution], created: str, model: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The document of an environment: every distribution in it and, if given, the component of a model.

    found: the installed distributions. model: ``metadata.component`` of a bundle's document.
    """
    components = _components(found, {})
    for component in components.values():
        component.scope = None  # an environment does not tell what uses a distribution
    subject = Component(name="environment", type=ComponentType.PLATFORM, bom_ref="environment")
    bom = _bom(created, subject, components, found)
    bom.register_dependency(subject, components.values())
    content = _serialised(bom)
    if model is not None:
        content["components"].insert(0, dict(model))
        content["dependencies"].insert(0, {"ref": model["bom-ref"]})
    return _with_serial(content)


def as_text(document: Mapping[str, Any]) -> str:
    """The document as the text of a file; equal documents give equal bytes."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _bom(created: str, subject: Component, components: Mapping[str, Component], found: Iterable[Distribution]) -> Bom:
    bom = Bom(components=components.values(), serial_number=UUID(int=0))
    for one in found:
        if one.key in components:
            bom.register_dependency(components[one.key], [components[key] for key in one.requires if key in components])
    bom.metadata.timestamp = datetime.fromisoformat(created.replace("Z", "+00:00"))
    bom.metadata.component = subject
    library = this_component()
    library.external_references.clear()  # addresses that say nothing about the bundle
    bom.metadata.tools.components.add(library)
    bom.metadata.tools.components.add(Component(name=NAME, version=__version__, type=ComponentType.APPLICATION))
    return bom


def _serialised(bom: Bom) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(JsonV1Dot6(bom).output_as_string())
    return content


def _with_serial(content: dict[str, Any]) -> dict[str, Any]:
    """The document with a serial number derived from the rest of its content (UUID version 5)."""
    rest = {key: value for key, value in content.items() if key != "serialNumber"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return {**content, "serialNumber": uuid5(_SERIAL, digest).urn}


def _model(manifest: Manifest) -> Component:
    model = manifest.model
    name = manifest.provenance.get("run") or manifest.provenance.get("checkpoint") or model.architecture
    return Component(
        name=str(name),
        version=model.digest[:12],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=MODEL,
        description="Classifier of axial brain-MRI slices. Research use only: not a medical device.",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model.digest)],
        components=[_file(entry) for entry in manifest.files],
    )


def _file(entry: Artifact | Document | Golden) -> Component:
    properties = []
    if isinstance(entry, Artifact):
        engines = sorted({check.engine for check in entry.checks})
        facts = {"format": entry.format, "precision": entry.precision, "checked-in": ", ".join(engines)}
        properties = [Property(name=f"stageproof:{key}", value=value) for key, value in facts.items() if value]
    return Component(
        name=entry.file,
        type=ComponentType.FILE,
        bom_ref=f"file:{entry.file}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=entry.sha256)],
        properties=properties,
    )


def _components(found: Iterable[Distribution], needed: Mapping[str, Need]) -> dict[str, Component]:
    """Canonical name → its component, with stageproof itself and what is needed and not installed here. A second
    version of a distribution, which is not imported, has its version in the key."""
    components: dict[str, Component] = {}
    listed = {one.key: one for one in found}
    every = [*found]
    if NAME not in listed:  # run from a checkout
        every.append(Distribution(NAME, __version__, ("Apache-2.0",), requires=tuple(needed), local=True))
    for one in every:
        components[one.key if listed.get(one.key, one) is one else f"{one.key} {one.version}"] = _library(one, needed)
    for key in needed.keys() - components.keys():
        missing = Property(name="stageproof:installed", value="false")
        components[key] = Component(
            name=key, bom_ref=key, scope=ComponentScope(needed[key].use.value), properties=[missing]
        )
    return components


def _library(one: Distribution, needed: Mapping[str, Need]) -> Component:
    use = Use.REQUIRED if one.key == NAME else needed[one.key].use if one.key in needed else Use.EXPORT
    purl = PackageURL("generic" if one.local else "pypi", None, one.key, one.version or None)
    record = [Property(name="stageproof:record-sha256", value=one.record)] if one.record else []
    tracker = [ExternalReference(type=ExternalReferenceType.ISSUE_TRACKER, url=XsUri(one.issues))]
    return Component(
        name=one.name,
        version=one.version or None,
        type=ComponentType.LIBRARY,
        bom_ref=str(purl),
        scope=ComponentScope(use.value),
        description=one.summary or None,
        purl=purl,
        licenses=_licences(one.licences),
        hashes=[HashType(alg=_HASHES[name], content=digest) for name, digest in one.archive.items() if name in _HASHES],
        external_references=tracker if one.issues else [],
        properties=record,
    )


def _licences(stated: tuple[str, ...]) -> list[License]:
    declared = LicenseAcknowledgement.DECLARED
    if len(stated) == 1:
        return [LicenseFactory().make_from_string(stated[0], license_acknowledgement=declared)]
    return [DisjunctiveLicense(name=name, acknowledgement=declared) for name in stated]
