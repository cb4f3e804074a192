"""The Python distributions of the environment, as their metadata describes them. Imports none of them."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

logger = logging.getLogger(__name__)

_LONGEST = 80
"""Maximum length of a licence name, in characters: longer values of the field are the text of the licence."""
_ADDRESS = re.compile(r"https://[\w\-.~:/?#@!$&'*+,;=%]+")
_TRACKERS = ("tracker", "issue", "bug")
_REPOSITORIES = ("repository", "source", "code", "github", "gitlab")


@dataclass(frozen=True)
class Distribution:
    """An installed distribution."""

    name: str
    version: str
    licences: tuple[str, ...] = ()
    """As it states them: an SPDX expression or names; empty if it states none."""
    summary: str = ""
    issues: str = ""
    """Address of its issue tracker, else of its repository; empty if it states neither."""
    requires: tuple[str, ...] = ()
    """Canonical names of the distributions that it requires here, for the extras that others here request of it."""
    record: str = ""
    """SHA-256 of its RECORD, which lists every installed file with its digest; empty without one."""
    archive: dict[str, str] = field(default_factory=dict)
    """Algorithm → digest of the archive it was installed from, where pip recorded it (PEP 610)."""
    local: bool = False
    """Whether it was installed from a folder, a file or a repository, and not from a package index."""

    @property
    def key(self) -> str:
        """Canonical name (PEP 503)."""
        return str(canonicalize_name(self.name))


def installed() -> tuple[Distribution, ...]:
    """Every distribution on the import path, sorted by name and version, each pair once.

    Metadata without a name, as an interrupted installation leaves it, describes no distribution: logged as a warning.
    """
    return _installed(tuple(sys.path))


def provider(module: str) -> str | None:
    """Canonical name of the installed distribution whose files include the module (``cuda.bindings``), or None."""
    starts = tuple(f"{module.replace('.', '/')}{end}" for end in ("/__init__.py", "/__init__.pyi", ".py", ".so"))
    for found in metadata.distributions():
        record = found.read_text("RECORD") or ""
        if any(f"\n{start}," in f"\n{record}" for start in starts) and (name := _name(found)):
            return str(canonicalize_name(name))
    return None


@cache
def _installed(path: tuple[str, ...]) -> tuple[Distribution, ...]:
    """As `installed`. path: `sys.path`, of which the result depends."""
    pairs = list(_read())[::-1]  # of two equal ones, the last below is the one that is imported
    requires = _requires({one.key: requirements for one, requirements in pairs})
    found = {(one.key, one.version): replace(one, requires=tuple(sorted(requires[one.key]))) for one, _ in pairs}
    return tuple(found[pair] for pair in sorted(found))


def _requires(requirements: Mapping[str, Sequence[Requirement]]) -> dict[str, set[str]]:
    """Canonical name → canonical names of what it requires in this environment."""
    environment = {name: str(value) for name, value in default_environment().items()}
    requires: dict[str, set[str]] = {name: set() for name in requirements}
    done: set[tuple[str, str]] = set()
    waiting = [(name, "") for name in requirements]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in done or name not in requirements:
            continue
        done.add((name, extra))
        for one in requirements[name]:
            if one.marker is None or one.marker.evaluate({**environment, "extra": extra}):
                required = str(canonicalize_name(one.name))
                requires[name].add(required)
                waiting += [(required, requested) for requested in one.extras]
    return requires


def _read() -> Iterator[tuple[Distribution, list[Requirement]]]:
    for found in metadata.distributions():
        name = _name(found)
        if not name:
            logger.warning(
                f"a distribution in {found.locate_file('')} has metadata without a name, so it is not in the bill of "
                "materials. Remove what is left of it, or install it again."
            )
            continue
        facts: Any = found.metadata
        record, origin = found.read_text("RECORD"), _origin(found)
        yield (
            Distribution(
                name,
                facts["Version"] or "",
                _licences(facts),
                _one_line(facts["Summary"]),
                _address(facts.get_all("Project-URL", [])),
                (),
                hashlib.sha256(record.encode()).hexdigest() if record else "",
                (origin.get("archive_info") or {}).get("hashes") or {},
                bool(origin),
            ),
            _requirements(name, found.requires or ()),
        )


def _name(found: metadata.Distribution) -> str | None:
    facts: Any = found.metadata
    return facts["Name"] if facts else None


def _origin(found: metadata.Distribution) -> dict[str, Any]:
    """Where it was installed from, if not from an index (PEP 610); {} otherwise."""
    try:
        content = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return {"url": ""}  # damaged: installed from somewhere else than an index
    return content if isinstance(content, dict) else {"url": ""}


def _licences(facts: Any) -> tuple[str, ...]:
    """The most exact statement: the SPDX expression, else a short licence field, else the classifiers."""
    if expression := facts["License-Expression"]:
        return (_one_line(expression),)
    lines = [line for line in (facts["License"] or "").splitlines() if line.strip()]
    if len(lines) == 1 and len(lines[0]) <= _LONGEST and lines[0].strip().upper() != "UNKNOWN":
        return (_one_line(lines[0]),)
    stated = [one.split(" :: ") for one in facts.get_all("Classifier", []) if one.startswith("License :: ")]
    names = tuple(dict.fromkeys(parts[-1] for parts in stated if parts[-1] not in ("OSI Approved", "DFSG approved")))
    return names or tuple(_one_line(line)[:_LONGEST] for line in lines[:1])


def _requirements(name: str, texts: Sequence[str]) -> list[Requirement]:
    found = []
    for text in texts:
        try:
            found.append(Requirement(text))
        except InvalidRequirement:
            logger.warning(f"{name} has the requirement {text!r}, which is invalid: not in the bill of materials.")
    return found


def _address(urls: list[str]) -> str:
    """The https address under a label that names a tracker, else a repository; empty if there is none."""
    labelled = [(label.strip().lower(), url.strip()) for label, _, url in (one.partition(",") for one in urls)]
    for words in (_TRACKERS, _REPOSITORIES):
        for label, url in labelled:
            if any(word in label for word in words) and _ADDRESS.fullmatch(url):
                return url
    return ""


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())
