"""`fetch`: the local folder of a run or bundle in a repository of the Hugging Face Hub, downloaded and verified."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError, CheckpointError
from stageproof.runtime.serialization.digests import DIGEST, sha256_file
from stageproof.runtime.serialization.json_fields import parse
from stageproof.runtime.system.regular_files import read_text
from stageproof.train.hub.checkout import checkout, working_copy
from stageproof.train.hub.contents import WEIGHTS
from stageproof.train.hub.reference import parse_reference
from stageproof.train.hub.snapshot import Snapshot, download
from stageproof.train.runs.record import RECORD, SCHEMA

logger = logging.getLogger(__name__)

ELSEWHERE = "<data>"
"""Path of the data in the record of a run from elsewhere: no file of this machine is looked for."""
ORIGIN = "hub"
"""Key of `run.json` that says where the run was downloaded from."""

_MISSING = object()
_NEEDED: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    *(("architecture", str), ("labels", list), ("input", dict), ("temperature", (int, float))),
    *(("weights_sha256", str), ("recipe", dict), ("metrics", dict), ("versions", dict), ("split", dict)),
    *(("options.data", (str, type(None))), ("options.seed", int)),
    *(("data.digest", str), ("data.source", str), ("data.slices", int), ("data.patients_told_by", str)),
)
"""Entries of `run.json` that commands read without checking them, since they wrote them."""


def fetch(text: str, kind: str, *, copy: bool = False) -> Path:
    """The local folder of a ``run`` or ``bundle`` (`kind`). Logs the commit and what is downloaded.

    text: ``hf:OWNER/NAME[@REVISION]``.
    copy: return a copy in the working folder; the folder that is returned otherwise must not be written to.

    The folder is verified: the seal and every digest of a bundle; the record of a run, and the digest of its weights.
    Nothing of the repository is run.

    Raises InputError for an invalid `text`, a repository that does not exist, or one that is no such `kind`;
    BundleError or CheckpointError if the verification fails; HubError if the Hub cannot be reached.
    """
    repository = parse_reference(text)
    snapshot = download(repository, kind)
    folder = _bundle(snapshot) if kind == "bundle" else _run(snapshot)
    return working_copy(repository, folder) if copy else folder


def _bundle(snapshot: Snapshot) -> Path:
    folder = checkout(snapshot.repository, snapshot.commit, snapshot.files)
    try:
        verified(folder)
    except BundleError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise type(error)(f"{snapshot.repository.at(snapshot.commit)} is refused: {error}") from error
    return folder


def _run(snapshot: Snapshot) -> Path:
    where = snapshot.repository.at(snapshot.commit)
    record = _record(snapshot.files[RECORD], where)
    digest, stated = sha256_file(snapshot.files[WEIGHTS]), record["weights_sha256"]
    if digest != stated:
        raise CheckpointError(
            f"{where} is refused: {WEIGHTS} has SHA-256 {digest[:12]}…, expected {stated[:12]}… from its {RECORD}: one "
            "of them was changed after training. Ask its owner to push the run again."
        )
    if record["options"]["data"] is not None:
        record["options"]["data"] = ELSEWHERE
    record[ORIGIN] = {
        "repository": snapshot.repository.name,
        "revision": snapshot.repository.revision,
        "commit": snapshot.commit,
    }
    content = (json.dumps(record, indent=2) + "\n").encode()
    return checkout(snapshot.repository, snapshot.commit, {**snapshot.files, RECORD: content})


def _record(path: Path, where: str) -> dict[str, Any]:
    """The content of a `run.json` that somebody else wrote. Raises CheckpointError."""
    try:
        record = parse(read_text(path), f"{where}: {RECORD}")
    except (BundleError, OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{where} is refused: {RECORD} cannot be read: {error}") from error
    if record.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{where}: {RECORD} has schema {record.get('schema')!r}, this version reads {SCHEMA}. Upgrade stageproof."
        )
    for key, kinds in _NEEDED:
        found: Any = record
        for part in key.split("."):
            found = found.get(part, _MISSING) if isinstance(found, dict) else _MISSING
        if not isinstance(found, kinds) or isinstance(found, bool):
            got = "missing" if found is _MISSING else type(found).__name__
            raise CheckpointError(f"{where} is refused: {key} of {RECORD} is {got}. It is no run of Stageproof.")
    if not DIGEST.fullmatch(record["weights_sha256"]):
        raise CheckpointError(f"{where} is refused: weights_sha256 of {RECORD} is not a SHA-256.")
    return record
