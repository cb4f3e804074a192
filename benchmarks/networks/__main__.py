"""`python -m benchmarks.networks`: the table of docs/networks.md, from phantoms and one training step each.

    python -m benchmarks.networks resnet18 --image-size 32

Prints Markdown. Takes minutes for each network.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stageproof.benchmarks.networks import NETWORKS
from stageproof.runtime.cli.exit_status import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0, also where a format is not offered: the table says why."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks",
        description="Trains networks for one step on phantoms, exports them to every format, and prints a table of the "
        "differences from the float32 reference.",
    )
    parser.add_argument("networks", nargs="*", default=NETWORKS, help="architectures; default: those of the table")
    parser.add_argument("--image-size", type=int, default=32, help="height and width, pixels (default: 32)")
    given = parser.parse_args(argv)
    from stageproof.benchmarks.networks.table import header, row  # imports torch

    print("\n".join(header()), flush=True)
    for name in given.networks:
        with tempfile.TemporaryDirectory() as folder:
            text, cells = row(name, given.image_size, Path(folder))
        print(text, flush=True)
        for cell in cells:
            if cell.layers:
                print(f"<!-- {name}: {cell.layers} -->", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="benchmarks"))
