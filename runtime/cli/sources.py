"""The run or bundle that a command works on: a path, or the value of --from, which may name a remote repository."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from stageproof.commands import SOURCES
from stageproof.runtime.bundle.manifest import DEFAULT_BUNDLE
from stageproof.runtime.cli.extras import require
from stageproof.runtime.errors import InputError
from stageproof.runtime.text.hints import quoted

FROM_HELP = "a path, or hf:OWNER/NAME[@REVISION], a repository of the Hugging Face Hub, which is downloaded"
"""Help of --from, after what it names."""

_HUB_URL = re.compile(r"(?:https?://[^/]+/|hf://)(?:models/)?([\w.-]+/[\w.-]+)/*", re.IGNORECASE)


def local_source(path: Path | None, source: str | None, kind: str, name: str, *, copy: bool = False) -> Path | None:
    """`path`, or the local path of `source`, the value of --from; None if both are None.

    A source with a prefix of `stageproof.commands.SOURCES` is downloaded by the module named there, which is imported
    only then; any other is a path.

    kind: ``run`` or ``bundle``, what the command needs. name: of the argument that `path` is from, for messages.
    copy: whether the command writes to it, and so needs a copy of what is downloaded.

    Raises InputError if both are given, or for a source of another form; DependencyError if the module's package is
    not installed; and what the module raises.
    """
    if path is not None and source is not None:
        raise InputError(f"{name} and --from both name the {kind}. Give one of them.")
    if path is not None:
        if prefix_of(str(path)) and not path.exists():
            raise InputError(f"{path} is not a path. Give a remote {kind} with: --from {quoted(str(path))}")
        return path
    if source is None:
        return None
    if not source:
        raise InputError(f"--from is empty, expected {FROM_HELP}.")
    if (prefix := prefix_of(source)) and not Path(source).exists():
        where = SOURCES[prefix]
        require(where.extra, where.package)
        found: Path = import_module(where.module).fetch(source, kind, copy=copy)
        return found
    if found_url := _HUB_URL.fullmatch(source):
        raise InputError(
            f"--from {source} is a URL. Write --from hf:{found_url[1]}, with @REVISION after it if needed."
        )
    return Path(source)


def named_or_default(bundle: Path, source: str | None) -> Path:
    """As `local_source`, for a command whose BUNDLE is `DEFAULT_BUNDLE` where it is left out."""
    named = None if bundle == Path(DEFAULT_BUNDLE) else bundle
    return local_source(named, source, "bundle", "BUNDLE") or bundle


def prefix_of(source: str) -> str | None:
    """The prefix of `source` in `stageproof.commands.SOURCES`; None if it has none."""
    return next((prefix for prefix in SOURCES if source.startswith(prefix)), None)
