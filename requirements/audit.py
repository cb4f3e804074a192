"""Known flaws of the packages in runtime.lock, by pip-audit; says so where that cannot be looked up, and passes.

Usage: python -P requirements/audit.py. Exit status: 1 a locked package has a known flaw, 0 otherwise.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

LOCK = Path(__file__).with_name("runtime.lock")
SECONDS = 120


def main() -> int:
    """As the module says."""
    if importlib.util.find_spec("pip_audit") is None:
        print("pip-audit is not installed: known flaws were not looked up (pip install pip-audit)")
        return 0
    words = ["--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner"]
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pip_audit", *words, "off"], capture_output=True, text=True, timeout=SECONDS
        )
        found = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        print("the database of known flaws cannot be reached: nothing was looked up")
        return 0
    flawed = [(one["name"], one["version"], flaw["id"]) for one in found for flaw in one.get("vulns", [])]
    for name, version, flaw in flawed:
        print(f"{name} {version}: {flaw}")
    print(f"{len(found)} locked packages looked up, {len(flawed)} known flaws")
    return 1 if flawed else 0


if __name__ == "__main__":
    sys.exit(main())
