"""`plan`: the files of a run or bundle to upload, what is left out and why. Opens no connection."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stageproof.runtime.bundle.manifest import Manifest
from stageproof.runtime.bundle.verify import verified
from stageproof.runtime.errors import BundleError, CheckpointError, InputError
from stageproof.runtime.serialization.digests import sha256_file
from stageproof.runtime.serialization.json_fields import parse
from stageproof.runtime.system.regular_files import read_regular, read_text
from stageproof.runtime.text.hints import command, nearest_path, program
from stageproof.train.hub.contents import (
    MANIFEST,
    SIGNATURE,
    UNSEALED,
    WEIGHTS,
    Privacy,
    run_file,
)
from stageproof.train.push.privacy import assert_nothing_private, public_record
from stageproof.train.runs.pseudonyms import PHANTOM
from stageproof.train.runs.record import RECORD, read_record

CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Plan:
    """What an upload consists of, apart from README.md."""

    kind: str
    """``run`` or ``bundle``."""
    files: dict[str, Path | bytes]
    """Path in the repository → a file, or its content."""
    left_out: dict[str, str]
    """File or folder → why it is not uploaded."""
    facts: dict[str, Any]
    """Content of `run.json` as it is uploaded; or of a manifest."""
    manifest: Manifest | None = None

    @property
    def card(self) -> str | None:
        """The text of the model card; None if there is none."""
        return content_of(self.files[CARD]).decode("utf-8") if CARD in self.files else None

    @property
    def sizes(self) -> dict[str, int]:
        """Path in the repository → bytes."""
        return {name: size_of(source) for name, source in self.files.items()}


def plan(path: Path, *, with_patients: bool = False) -> Plan:
    """The upload of the run or bundle at `path`.

    with_patients: also the files of a run that name patients or slices.

    Raises InputError if `path` is neither or if `with_patients` is given for a bundle, which has none;
    BundleError or CheckpointError if it was changed; InputError if a file would tell a name or path of this machine.
    """
    if not path.is_dir():
        what = "a file" if path.exists() else f"not there.{nearest_path(path)}"
        raise InputError(f"{path} is {what.rstrip('.')}. Expected the folder of a run or a bundle.")
    is_run, is_bundle = ((path / mark).is_file() for mark in (RECORD, MANIFEST))
    if is_run and is_bundle:
        raise InputError(f"{path} contains both {RECORD} and {MANIFEST}: it is no run and no bundle.")
    if is_bundle:
        if with_patients:
            raise InputError("--with-patients is for a run: a bundle has no file about patients.")
        return _of_bundle(path)
    if is_run:
        return _of_run(path, with_patients)
    raise InputError(
        f"{path} contains neither {RECORD}, as a run of {program('train')} does, nor {MANIFEST}, as a bundle of "
        f"{program('export')} does. Nothing else is uploaded."
    )


def content_of(source: Path | bytes) -> bytes:
    """The bytes of a file to upload."""
    return source if isinstance(source, bytes) else read_regular(source)


def size_of(source: Path | bytes) -> int:
    """The size of a file to upload, in bytes."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _of_bundle(path: Path) -> Plan:
    manifest = verified(path)
    if not manifest.artifacts:
        raise BundleError(f"{path} has no artifact: nobody could predict with it. Export again: {command('export')}")
    names = [
        MANIFEST,
        *(entry.file for entry in manifest.files),
        *([SIGNATURE] if (path / SIGNATURE).is_file() else []),
    ]
    files: dict[str, Path | bytes] = {name: path / name for name in names}
    left_out = {f"{name}/": "not needed to predict" for name in UNSEALED if (path / name).is_dir()}
    assert_nothing_private(_texts(files), (), f"An earlier version exported {path}. Export again: {command('export')}")
    return Plan("bundle", files, left_out, parse(read_text(path / MANIFEST), str(path / MANIFEST)), manifest)


def _of_run(path: Path, with_patients: bool) -> Plan:
    record = read_record(path)
    weights = path / WEIGHTS
    if not weights.is_file():
        raise CheckpointError(f"{path} has no {WEIGHTS}, the weights of the run. Nothing was uploaded.")
    digest, stated = sha256_file(weights), str(record.get("weights_sha256"))
    if digest != stated:
        raise CheckpointError(
            f"{weights} has SHA-256 {digest[:12]}…, expected {stated[:12]}… from the record of the run: the weights "
            "were changed after training. Nothing was uploaded."
        )
    phantoms = _on_phantoms(record)
    files: dict[str, Path | bytes] = {}
    left_out: dict[str, str] = {}
    for name in _names(path):
        found = run_file(name)
        if found is None or found.privacy is Privacy.NEVER:
            left_out[name] = found.why if found else "no part of a run"
        elif found.privacy is Privacy.PATIENTS and not (phantoms or with_patients):
            left_out[name] = f"{found.why} (--with-patients uploads it)"
        else:
            files[name] = path / name
    public = public_record(record, path)
    text = json.dumps(public, indent=2) + "\n"
    try:
        parse(text, str(path / RECORD))  # as strict as the download
    except BundleError as error:
        raise CheckpointError(f"{error} Nothing was uploaded, since nobody could download it.") from error
    files[RECORD] = text.encode()
    shown = {name: source for name, source in files.items() if not _of_patients(name)}
    advice = f"Evaluate the run again: {command('train.evaluate', path)}"
    assert_nothing_private(_texts(shown), () if phantoms else _slices(path), advice)
    return Plan("run", files, left_out, public)


def _on_phantoms(record: dict[str, Any]) -> bool:
    """Whether the run was trained on synthetic slices, which show nobody."""
    source = str((record.get("data") or {}).get("source"))
    return (record.get("options") or {}).get("data", "") is None and source.startswith(PHANTOM)


def _of_patients(name: str) -> bool:
    found = run_file(name)
    return found is not None and found.privacy is Privacy.PATIENTS


def _names(folder: Path) -> list[str]:
    """The files of a run, relative to it with `/`, sorted. Raises InputError for a symbolic link."""
    found = []
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place) / name
            if path.is_symlink():
                raise InputError(
                    f"{path} is a symbolic link. Replace it by a copy, or remove it. Nothing was uploaded."
                )
        found += [(Path(place) / name).relative_to(folder).as_posix() for name in names]
    return sorted(found)


def _texts(files: dict[str, Path | bytes]) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name of each text file, and a function that reads it."""
    for name, source in files.items():
        if name.endswith((".json", ".jsonl", ".md", ".csv", ".html")):
            yield name, lambda source=source: content_of(source).decode("utf-8", "replace")  # type: ignore[misc]


def _slices(run: Path) -> list[str]:
    """Names of the slices of the run, and of its data; empty if it has no split file."""
    from stageproof.train.runs.split_file import SPLIT, read_split

    return list(read_split(run)) if (run / SPLIT).is_file() else []
