"""The component of a bundle's model, with its card, in the bundle's bill of materials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stageproof.export.sbom.document import bundle_document
from stageproof.export.sbom.model_card import model_card
from stageproof.runtime.bundle.manifest import Manifest, artifact_bytes
from stageproof.runtime.errors import BundleError

SBOM = "sbom.cdx.json"
_EPOCH = "1970-01-01T00:00:00Z"
"""Time of a document of which only the component is used."""


def model_component(bundle: Path, manifest: Manifest) -> dict[str, Any]:
    """The component of a verified bundle's model.

    A bundle of an earlier version has no bill of materials: the component is made from its manifest, without figures.
    Raises BundleError if the file is damaged.
    """
    stored = stored_component(bundle, manifest)
    if stored is not None:
        return stored
    card = model_card(manifest, None)
    made: dict[str, Any] = bundle_document(manifest, (), {}, card, _EPOCH)["metadata"]["component"]
    return made


def stored_component(bundle: Path, manifest: Manifest) -> dict[str, Any] | None:
    """As `model_component`; None for a bundle without a bill of materials."""
    entry = next((one for one in manifest.documents if one.file == SBOM), None)
    if entry is None:
        return None
    try:
        component = json.loads(artifact_bytes(bundle, entry))["metadata"]["component"]
        if not isinstance(component, dict) or not {"bom-ref", "modelCard"} <= component.keys():
            raise ValueError("its metadata.component is no model with a card")
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{bundle / SBOM} is no bill of materials of a bundle: {error}. Export again.") from error
    return component
