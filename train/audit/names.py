"""Removes file names and patient ids from the findings of an audit, for files that are shared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stageproof.train.data.ids import WORDS
from stageproof.train.data.samples import Skipped
from stageproof.train.runs.pseudonyms import Pseudonyms, public_source, with_texts

_PARTS = {"train", "training", "test", "testing", "val", "valid", "validation"}
"""Folder names of a split, which do not identify a patient and are kept."""


def without_names(
    findings: dict[str, Any], names: Sequence[str], skipped: Sequence[Skipped], pseudonyms: Pseudonyms
) -> dict[str, Any]:
    """The findings with a pseudonym (keyed digest) for every file name, and without ids and examples.

    names: all file names. skipped: the files listed in `not_taken`.
    """
    of = pseudonyms.of
    kind = findings["patients_told_by"]
    notes = len(findings["ids_not_used"])
    written = {
        **findings,
        "source": public_source(findings["source"]),
        "unreadable": [
            {"name": of(one["name"]), "reason": _without(one["reason"], one["name"])} for one in findings["unreadable"]
        ],
        "not_taken": [f"{one.count} {one.reason}" for one in skipped],
        "ids_from": findings["ids_from"] and WORDS.get(kind, kind),
        "ids_not_used": [f"{notes} other ids were found and not used; names.json lists them"] if notes else [],
    }
    for pairs in ("twins", "two_heads"):
        if findings[pairs]:
            written[pairs] = [[of(one), of(other)] for one, other in findings[pairs]]
    if findings["label_conflicts"]:
        written["label_conflicts"] = [
            {**one, "files": [of(name) for name in one["files"]]} for one in findings["label_conflicts"]
        ]
    if findings["given_split"]:
        folders = findings["given_split"]["slices_by_folder"]
        counts = {name if name.lower() in _PARTS else of(name): count for name, count in folders.items()}
        written["given_split"] = {**findings["given_split"], "slices_by_folder": counts}
    known = set(names)
    return with_texts(written, lambda text: of(text) if text in known else text)


def names_file(findings: dict[str, Any], pseudonyms: Pseudonyms, names: Sequence[str]) -> dict[str, Any]:
    """The content of `names.json`, which is not shared: the file of each pseudonym, and the ids found but not used."""
    folders = findings["given_split"]["slices_by_folder"] if findings["given_split"] else {}
    return {
        "key": pseudonyms.key.hex(),
        "source": findings["source"],
        "ids_from": findings["ids_from"],
        "ids_not_used": findings["ids_not_used"],
        "not_taken": findings["not_taken"],
        "names": {pseudonyms.of(name): name for name in (*names, *folders)},
    }


def _without(reason: str, name: str) -> str:
    """The reason, or a generic one if it contains the name of the file or a path."""
    words = [name, name.rpartition("/")[2]]
    if any(word and word in reason for word in words) or "/" in reason:
        return "it cannot be read; names.json has the name of the file"
    return reason
