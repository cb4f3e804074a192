"""Is a bundle what its export wrote? Asked of every file before any engine sees one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtime.errors import BundleError
from runtime.manifest import Manifest, artifact_path, read_manifest

ARTIFACT_SUFFIXES = frozenset(
    {".onnx", ".ts", ".pt", ".pth", ".pt2", ".pte", ".xml", ".bin", ".engine", ".plan", ".safetensors", ".npz", ".data"}
)
"""Files with these suffixes are loaded by something; in a bundle each must stand in the manifest."""


def verified(bundle: Path) -> Manifest:
    """The manifest of a bundle of which every file was hashed and none is missing, changed, outside or unaccounted for.

    Raises BundleError naming the file. Hashes in parallel: about a second for a gigabyte a core.
    """
    manifest = read_manifest(bundle)
    named = {entry.file for entry in manifest.files}
    for path in sorted(bundle.rglob("*")):
        file = path.relative_to(bundle).as_posix()
        if path.suffix.lower() in ARTIFACT_SUFFIXES and file not in named and not path.is_dir():
            raise BundleError(
                f"{path} is not named by the manifest: it was added after export. Nothing was loaded. Remove it, or "
                "copy the bundle again."
            )
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="neurostage-hash") as pool:
        for _ in pool.map(lambda entry: artifact_path(bundle, entry), manifest.files):
            pass
    return manifest
