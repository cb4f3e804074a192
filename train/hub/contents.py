"""Which files a run or a bundle consists of, and what a repository contains, by the names of its files alone."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase

from stageproof.runtime.artifacts.entries import FILE as MANIFEST
from stageproof.runtime.artifacts.entries import LOGS, REJECTED, SIGNATURE
from stageproof.runtime.artifacts.metadata import FORMATS
from stageproof.train.runs.record import RECORD

README = "README.md"
"""The card of a repository, which the Hub shows. Not part of a run or bundle."""
GIT = (".gitattributes", ".gitignore")
"""Files of the repository itself."""
WEIGHTS = "model.safetensors"
"""The weights of a run, as in `train.runs.directory`, which imports torch."""


class Privacy(Enum):
    """Whether a file of a run may be published."""

    PUBLIC = "public"
    PATIENTS = "patients"
    """It names patients or slices, or shows slices: only if the user says so."""
    NEVER = "never"


@dataclass(frozen=True)
class RunFile:
    """A kind of file in a run directory."""

    pattern: str
    privacy: Privacy = Privacy.PUBLIC
    why: str = ""
    """What it holds, for a file that is not public."""


_SLICES = "names and patients of slices"
RUN_FILES = (
    RunFile(RECORD),
    RunFile(WEIGHTS),
    RunFile("metrics.jsonl"),
    RunFile("MODEL_CARD.md"),
    RunFile("DATASET_CARD.md"),
    RunFile("curves.png"),
    RunFile("confusion.png"),
    RunFile("evaluation/evaluation.json"),
    *(
        RunFile(f"evaluation/{name}.png")
        for name in (
            *("confusion", "control", "figures", "net-benefit", "predictive-values"),
            *("reliability", "risk-coverage", "roc", "roc-classes"),
        )
    ),
    RunFile("split.csv", Privacy.PATIENTS, _SLICES),
    RunFile("unreadable.json", Privacy.PATIENTS, "names of files"),
    RunFile("evaluation/predictions.csv", Privacy.PATIENTS, _SLICES),
    RunFile("evaluation/report.html", Privacy.PATIENTS, "pictures of slices"),
    RunFile("evaluation/names.json", Privacy.NEVER, "the key of the pseudonyms"),
    RunFile("evaluation-*/*", Privacy.NEVER, "an evaluation on other data, whose name is in the path"),
    RunFile("index.html", Privacy.NEVER, "links to local files"),
)
"""Every kind of file in a run directory; all others are foreign to it."""

_BUNDLE_FILES = (
    *(MANIFEST, SIGNATURE, "guard.npz", "parity.json", "MODEL_CARD.md", "golden/*", "model.bin", "model.*.bin"),
    *("sbom.cdx.json", "SOUP.md"),
    *(f"model{middle}{suffix}" for suffix, _ in FORMATS.values() for middle in ("", ".*")),
)
UNSEALED = (REJECTED, LOGS)
"""Folders of a bundle that are not listed in its manifest."""


def run_file(name: str) -> RunFile | None:
    """The kind of a file of a run directory; None if it is foreign. name: relative to the run, with `/`."""
    return next((one for one in RUN_FILES if fnmatchcase(name, one.pattern)), None)


def is_part(name: str, kind: str) -> bool:
    """Whether a file of this name belongs to what a run or a bundle (`kind`) consists of."""
    if kind == "run":
        found = run_file(name)
        return found is not None and found.privacy is not Privacy.NEVER
    return any(fnmatchcase(name, pattern) for pattern in _BUNDLE_FILES)


def kind_of(names: Collection[str]) -> str | None:
    """``run`` or ``bundle``, by the files in a repository; ``both``; or None if it is neither."""
    marks = [kind for kind, mark in (("run", RECORD), ("bundle", MANIFEST)) if mark in names]
    return "both" if len(marks) > 1 else marks[0] if marks else None


def listed(names: Collection[str], most: int = 8) -> str:
    """The names for a message, at most `most` of them; ``no files`` if there are none."""
    own = sorted(set(names) - set(GIT))
    more = f" and {len(own) - most} more" if len(own) > most else ""
    return ", ".join(own[:most]) + more if own else "no files"


def megabytes(size: int) -> str:
    """A size in bytes for people: ``12 kB``, ``85.2 MB``."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{-(-size // 1000)} kB"
