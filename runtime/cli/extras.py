"""The optional packages of a command: one line that names what to install, in place of a traceback.

setup.cfg sorts optional packages into extras (``stageproof[export]``). A command calls `require` before its first heavy
import; `runtime.cli.exit_status.exit_status` turns what is missing later into the same line.
"""

from __future__ import annotations

from importlib.util import find_spec

from stageproof.checkout import PACKAGES
from stageproof.runtime.errors import DependencyError

OURS = ("stageproof", *PACKAGES)
"""Our own packages: that one of their modules is missing is a broken installation, not a missing extra."""


def require(extra: str, *modules: str) -> None:
    """Raise DependencyError unless every one of these top-level modules is installed. Imports none of them.

    extra: of setup.cfg, the one that installs them all.
    modules: names as `import` takes them, such as ``tyro``.
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
    """The DependencyError for a failed import; None where the module is one of ours or of the standard library."""
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
