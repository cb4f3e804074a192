"""`SOUP.md`: the third-party software of a bundle as a table for people, from the data of the bill of materials.

SOUP, "software of unknown provenance", is the term of IEC 62304. The list helps whoever has to keep one; it claims no
conformity with that standard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from stageproof.export.sbom.distributions import Distribution
from stageproof.export.sbom.document import NAME
from stageproof.export.sbom.needs import Need, Use
from stageproof.train.reports.templates import markdown


def soup(found: Iterable[Distribution], needed: Mapping[str, Need], created: str, version: str, digest: str) -> str:
    """The text of `SOUP.md`. Arguments as of `sbom.document.bundle_document`.

    version: of stageproof. digest: SHA-256 of the model's weights.
    """
    third = [one for one in found if one.key != NAME]
    used: list[dict[str, str]] = []
    rest: list[dict[str, str]] = []
    for one in third:
        need = needed.get(one.key)
        (rest if need is None else used).append(_row(one, need))
    for key in sorted(needed.keys() - {one.key for one in third}):
        missing = Distribution(key, "not installed here")
        used.append(_row(missing, needed[key]))
    return markdown("export/sbom/soup.md.j2", used=used, rest=rest, created=created, version=version, digest=digest)


def _row(one: Distribution, need: Need | None) -> dict[str, str]:
    return {
        "name": one.name,
        "version": one.version,
        "licence": ", ".join(one.licences) or "not stated",
        "purpose": (need.purpose if need else one.summary) or "not stated",
        "where": need.where if need else "export",
        "needed": _needed(need) if need else "",
        "issues": one.issues,
    }


def _needed(need: Need) -> str:
    if need.use is Use.REQUIRED:
        return "yes"
    return "with its engine" if need.indirect else "one engine suffices"
