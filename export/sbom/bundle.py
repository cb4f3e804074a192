"""Writes `sbom.cdx.json` and `SOUP.md` into a bundle."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from stageproof.export.hashed_files import write
from stageproof.export.sbom.component import SBOM, stored_component
from stageproof.export.sbom.distributions import installed
from stageproof.export.sbom.document import as_text, bundle_document
from stageproof.export.sbom.model_card import model_card
from stageproof.export.sbom.needs import needs
from stageproof.export.sbom.soup import soup
from stageproof.runtime import __version__
from stageproof.runtime.bundle.manifest import Document, Manifest, read_manifest

SOUP = "SOUP.md"
WRITTEN = (SBOM, SOUP)
"""Files that every export writes anew."""


def with_sbom(manifest: Manifest, folder: Path, run: Path | None, kept: Path | None = None) -> Manifest:
    """The manifest extended by `SBOM` and `SOUP`, which are written into the bundle `folder`.

    Their time is that of the export in the manifest, and the serial number is derived from the content: equal manifests
    and environments give equal bytes.

    run: the run directory of the model, if there is one. kept: a bundle of the same model whose model card is kept, if
    it has one, as `--rebuild` keeps its MODEL_CARD.md.
    """
    found, created = installed(), str(manifest.provenance["exported"])
    needed = needs(manifest, {one.key: one for one in found})
    stored = stored_component(kept, read_manifest(kept)) if kept else None
    card = stored["modelCard"] if stored else model_card(manifest, run)
    texts = {
        SBOM: as_text(bundle_document(manifest, found, needed, card, created)),
        SOUP: soup(found, needed, created, __version__, manifest.model.digest),
    }
    documents = tuple(Document(name, write(folder / name, text.encode())) for name, text in texts.items())
    return replace(manifest, documents=(*manifest.documents, *documents))
