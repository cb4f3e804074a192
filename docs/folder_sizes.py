"""Modules of each folder and lines of each module, against the limits of docs/architecture.md.

    python docs/folder_sizes.py

Exit status: 0 within the limits, 1 not.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("stageproof", "runtime", "train", "export", "serving", "benchmarks")
MOST_MODULES = 12
"""In a folder, `__init__` included; files of pytest-benchmark in `benchmarks/` are not counted."""
MOST_LINES = 300
MEDIAN_LINES = 130


def main() -> int:
    """Print the sizes; the exit status."""
    lines = {
        path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines())
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if not path.name.startswith("test_")
    }
    folders = Counter(path.parent for path in lines)
    for folder, modules in sorted(folders.items()):
        sizes = [size for path, size in lines.items() if path.parent == folder]
        print(f"{folder!s:32} {modules:3} modules {sum(sizes):6} lines  largest {max(sizes):4}")
    middle = median(size for path, size in lines.items() if size > 5)  # without empty __init__ files
    print(f"{len(lines)} modules, {sum(lines.values())} lines, median {middle:.0f}")
    wrong = [f"{folder} has {count} modules" for folder, count in folders.items() if count > MOST_MODULES]
    wrong += [f"{path} has {size} lines" for path, size in lines.items() if size > MOST_LINES]
    wrong += [f"the median is {middle:.0f} lines"] if middle > MEDIAN_LINES else []
    print("\n".join(f"too large: {one}" for one in wrong), file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
