"""`python -m runtime.explain BUNDLE scan.jpg`: write a Grad-CAM heat map of a slice as PNG."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from stageproof.runtime.bundle.manifest import FILE as MANIFEST
from stageproof.runtime.bundle.manifest import read_manifest
from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.messages import shown
from stageproof.runtime.cli.sources import FROM_HELP, local_source
from stageproof.runtime.errors import InputError, StageproofError
from stageproof.runtime.explain.explanation import explain_prediction
from stageproof.runtime.labels import ASSUMED, order_line
from stageproof.runtime.text.escapes import line
from stageproof.runtime.text.hints import command, program

logger = logging.getLogger("stageproof.runtime.explain")  # __name__ is __main__ under python -m

_EPILOG = """\
Needs a bundle with a float32 .pt2 (export --to torch-export) and the
extra: pip install 'stageproof[explain]'. A .pt2 carries code:
--trust-code says that you trust whoever made the bundle. A Grad-CAM is coarse:
it shows which cells of a late layer raised a class, not where a disease is. It
needs 7 x 7 cells: models of 32 x 32 pixels are refused.

Exit status: 0 written; 1 image rejected by the guard; 2 invalid usage or input.
Research use only: not a medical device.
"""


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command."""
    options = _parser().parse_intermixed_args(argv)  # the bundle is optional, and options may stand between
    out = options.out or Path(f"{options.image.stem}.gradcam.png")
    try:
        if out.exists():
            raise InputError(f"{out} exists. Remove it, or give another --out.")
        bundle = local_source(options.bundle, options.source, "bundle", "BUNDLE")
        if bundle is None:
            raise InputError(f"no bundle was given. For example: {command('runtime.explain', 'bundle', options.image)}")
        if (bundle / MANIFEST).is_file() and (manifest := read_manifest(bundle)).labels_from == ASSUMED:
            logger.info(order_line(manifest.model.labels, ASSUMED))
        prediction, png = explain_prediction(bundle, options.image, options.label, trust_code=options.trust_code)
        if png is None:
            logger.info(f"{options.image} was rejected: {prediction.reason}. Nothing was written.")
            return 1
        _write(out, png)
    except StageproofError as error:
        return report_error(error)
    print(line(str(out)))
    print("Research use only: not a diagnosis.", file=sys.stderr)
    return 0


def _write(out: Path, png: bytes) -> None:
    """Write the file atomically. Raises InputError."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}-", dir=out.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(png)
        Path(name).replace(out)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}. Give another --out.") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("runtime.explain"),
        description="Draw a Grad-CAM heat map: where a slice increased the logit of a class.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made = f"a folder that {program('export')} wrote"
    parser.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help=made)
    parser.add_argument("image", type=Path, metavar="IMAGE", help="one slice: any image file, or DICOM")
    parser.add_argument("--from", dest="source", metavar="SOURCE", help=f"in place of BUNDLE: {FROM_HELP}")
    parser.add_argument("--label", help="the class to explain (default: the most probable one)")
    parser.add_argument("--trust-code", action="store_true", help="load the .pt2 although it contains code")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="picture to write (default: IMAGE.gradcam.png)")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main))
