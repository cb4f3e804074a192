"""Import aliases in a checkout: `runtime.predictor` and `stageproof.runtime.predictor` are the same module object.

A wheel has only the long names: four generic names in site-packages could overwrite those of other projects. In a
checkout the working folder is on the import path, so the short names are found too, and without an alias would be
loaded as second copies with their own classes and locks. `one_module` makes a package's short name an alias of the
long one; a finder does the same for its modules.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import CodeType, ModuleType

PACKAGES = ("runtime", "train", "export", "serving", "benchmarks")


def one_module(name: str) -> None:
    """Make the package `name`, which is being imported, an alias of ``stageproof.NAME``."""
    if name in PACKAGES:
        if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder())
        sys.modules[name] = import_module(f"stageproof.{name}")


class _Finder(MetaPathFinder):
    """Finds ``runtime.x`` as an alias of ``stageproof.runtime.x``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in PACKAGES or "." not in fullname:
            return None
        found = find_spec(f"stageproof.{fullname}")
        if found is None:
            return None
        spec = ModuleSpec(
            fullname, _Alias(found), origin=found.origin, is_package=found.submodule_search_locations is not None
        )
        spec.submodule_search_locations = found.submodule_search_locations
        spec.has_location = found.has_location
        return spec


class _Alias(Loader):
    """Loads the module of the long name; `python -m` runs its code."""

    def __init__(self, found: ModuleSpec) -> None:
        self._found = found

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(self._found.name)
        self._own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own  # the import system has replaced it by the alias's spec

    def get_code(self, fullname: str) -> CodeType | None:
        return self._found.loader.get_code(self._found.name)  # type: ignore[union-attr]

    def is_package(self, fullname: str) -> bool:
        return self._found.submodule_search_locations is not None
