"""Checks for optional packages: a one-line message with the extra to install, instead of a traceback.

setup.cfg groups optional packages into extras (``stageproof[export]``). A command calls `require` before its first
heavy import; `runtime.cli.exit_status.exit_status` converts later import errors into the same message.
"""

from __future__ import annotations

from importlib.util import find_spec

from stageproof.checkout import PACKAGES
from stageproof.runtime.errors import DependencyError

OURS = ("stageproof", *PACKAGES)
"""Packages of this project. If one of their modules is missing, the installation is broken, not an extra missing."""


def require(extra: str, *modules: str) -> None:
    """Raise DependencyError unless all of these top-level modules are installed. Imports none of them.

    extra: the extra of setup.cfg that installs all of them.
    modules: import names, such as ``tyro``.
    """
    lacking = [name for name in modules if not _installed(name)]
    if lacking:
        raise dependency_error(extra, *lacking)


def dependency_error(extra: str, *modules: str) -> DependencyError:
    """The error for packages that are not installed."""
    packages = f"package{'s' if len(modules) > 1 else ''} {', '.join(modules)}"
    verb = "are" if len(modules) > 1 else "is"
    return DependencyError(f"the {packages} {verb} not installed: pip install 'stageproof[{extra}]'")


def from_import_error(error: ModuleNotFoundError, extra: str) -> DependencyError | None:
    """The DependencyError for a failed import; None if the module is ours or from the standard library."""
    from sys import stdlib_module_names

    name = (error.name or "").split(".")[0]
    if not name or name in OURS or name in stdlib_module_names or _installed(name):
        return None
    return dependency_error(extra, name)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # None in sys.modules, or a module without a spec
        return False
