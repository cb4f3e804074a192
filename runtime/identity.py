"""Which bundle or artifact was loaded, so that another process loads the same one or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.digests import sha256_file
from runtime.errors import BundleError
from runtime.manifest import FILE

OPTIONS = (
    *("backend", "precision", "device", "threads", "guard"),
    *("abstain_below", "self_test", "tune", "audit", "audit_key", "isolate", "max_pixels"),
)
"""Of `Predictor`, which travel with it to another process."""


class Identity:
    """The absolute path of a bundle or lone artifact, and what it was when this was made."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        """Links are not resolved: a bundle is often replaced by turning one."""
        self._files = [self.path] if self.path.is_file() else [self.path / FILE]
        if self.path.suffix == ".xml":
            self._files.append(self.path.with_suffix(".bin"))  # OpenVINO's weights
        self._then = self._status()
        # A manifest is small. An artifact is not, and most are never asked for theirs.
        folder = self._files[0].name == FILE and self._files[0].is_file()
        self._digest = sha256_file(self._files[0]) if folder else None

    def digest(self) -> str:
        """SHA-256, hexadecimal, of the manifest, which has those of all its files, or of the lone artifact.

        Raises BundleError where an artifact has changed since this was made.
        """
        if self._digest is None:
            digests = [sha256_file(file) for file in self._files if file.is_file()]
            if self._status() != self._then or not digests:
                raise BundleError(f"{self.path} has changed since it was loaded. Load the Predictor again.")
            self._digest = digests[0] if len(digests) == 1 else "-".join(digests)
        return self._digest

    def expect(self, digest: str) -> None:
        """Raise BundleError unless this is what had that digest."""
        if not self.path.exists():
            raise BundleError(f"{self.path}, which a pickled Predictor names, does not exist here. Copy it there.")
        if self.digest() != digest:
            raise BundleError(
                f"{self.path} has SHA-256 {self.digest()[:12]}…, and the Predictor that was pickled had "
                f"{digest[:12]}…: the bundle was replaced in between. Load the Predictor again, and pickle that one."
            )

    def _status(self) -> list[tuple[int, ...] | None]:
        return [_status(file) for file in self._files]


def restored(kind: Callable[..., Any], path: str, options: dict[str, Any], digest: str) -> Any:
    """What was pickled: `kind` made again, in this process. Raises BundleError where the bundle is another one now."""
    Identity(Path(path)).expect(digest)
    return kind(path, **options)


def absolute(path: bool | str | os.PathLike[str] | None) -> bool | str | None:
    """The same in every working folder; an option that is no path stays as it is."""
    return path if path is None or isinstance(path, bool) else str(Path(path).absolute())


def _status(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
