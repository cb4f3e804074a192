"""Reads class orders from files beside a checkpoint, such as class_to_idx.json, classes.txt and config.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from stageproof.runtime.errors import CheckpointError
from stageproof.runtime.labels import LABELS
from stageproof.runtime.system.regular_files import read_text
from stageproof.train.foreign.class_names import canonical
from stageproof.train.foreign.class_order import Statement
from stageproof.train.foreign.stated_order import stated

_NAMED = {
    *("class_to_idx", "class_to_index", "class_indices", "label2id", "label_to_idx"),
    *("idx_to_class", "index_to_class", "id2label", "idx_to_label"),
    *("classes", "class_names", "class_labels", "labels", "label_names", "label_map"),
}
"""Names (with .json or .txt) of files that list classes."""
_SETTINGS = {"config", "hparams", "hyper_parameters", "metadata", "model_config"}
"""Names of JSON files that may list classes, as may one with the name of the checkpoint."""
_LARGEST = 1_000_000


def beside(checkpoint: Path, count: int = len(LABELS)) -> list[Statement]:
    """The class orders in the files beside the checkpoint. count: number of outputs of its network.

    Raises CheckpointError if a file that lists classes cannot be read, and as `train.foreign.stated_order.stated`.
    """
    found: list[Statement] = []
    for path in sorted(checkpoint.parent.iterdir()):
        stem, suffix = path.stem.lower(), path.suffix.lower()
        about_classes = stem in _NAMED
        if suffix not in (".json", ".txt") or not path.is_file() or path.stat().st_size > _LARGEST:
            continue
        if suffix == ".json" and (about_classes or stem in _SETTINGS or path.stem == checkpoint.stem):
            found += _json(path, about_classes, count)
        elif suffix == ".txt" and about_classes:
            found += _lines(path, count)
    return found


def _json(path: Path, about_classes: bool, count: int) -> list[Statement]:
    try:
        content: Any = json.loads(_text(path))
    except (ValueError, RecursionError, CheckpointError) as error:
        if not about_classes:
            return []
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}, beside the checkpoint, is not JSON ({error}), so its class order cannot be read. Correct it, or "
            "move it to another folder."
        ) from error
    content = {path.stem: content} if about_classes else content
    found = stated(content, str(path)) if isinstance(content, dict) else []
    return [
        Statement(str(path) if one.where == f"{path.stem} in {path}" else one.where, one.names)
        for one in found
        if about_classes or any(one.labels) or len(one.names) == count  # else of the pretrained network
    ]


def _lines(path: Path, count: int) -> list[Statement]:
    """Class order from a text file with one class in each line, optionally with its index before or after it."""
    rows = [line.strip() for line in _text(path).splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not any(canonical([row])[0] for row in rows) and len(rows) != count:
        return []  # some labels.txt files list images
    numbered = [re.fullmatch(r"(\d+)\s*[:,;=\t ]\s*(.+)|(.+?)\s*[:,;=\t ]\s*(\d+)", row) for row in rows]
    if rows and all(numbered):
        pairs = {(match[2] or match[3]): int(match[1] or match[4]) for match in numbered if match}
        return [Statement(str(path), one.names) for one in stated({"class_to_idx": pairs}, str(path))]
    return [Statement(str(path), one.names) for one in stated({"classes": rows}, str(path))]


def _text(path: Path) -> str:
    try:
        return read_text(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}, beside the checkpoint, cannot be read: {error}. Correct it, or move it to another folder."
        ) from error
