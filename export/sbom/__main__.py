"""`stageproof sbom`: the bill of materials of the environment that it runs in, and of a bundle's model."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.cli.messages import shown
from stageproof.runtime.errors import InputError, StageproofError
from stageproof.runtime.text.hints import program

logger = logging.getLogger("stageproof.export.sbom")  # __name__ is __main__ under python -m

_EPILOG = """\
Every distribution on the import path is listed with version, licence, package
URL and the digest of its list of installed files. Nothing is downloaded or
looked up. Run it in the environment of the server, with its Python.

Exit status: 0 written, 2 invalid usage or input.
"""


@shown()
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command."""
    options = _parser().parse_args(argv)
    try:
        require("sbom", "cyclonedx", "packaging")
        count = _write(options.bundle, options.out)
    except StageproofError as error:
        return report_error(error)
    print(f"{options.out}: {count} distributions" + (f", and the model of {options.bundle}" if options.bundle else ""))
    return 0


def _write(bundle: Path | None, out: Path) -> int:
    """Write the document to `out`, whole or not at all; the number of its distributions."""
    from stageproof.export.sbom.component import model_component
    from stageproof.export.sbom.distributions import installed
    from stageproof.export.sbom.document import as_text, environment_document
    from stageproof.runtime.bundle.verify import verified
    from stageproof.train.runs.record import now

    if out.is_dir() or not out.parent.is_dir():
        what = "a folder" if out.is_dir() else f"in a folder that does not exist, {out.parent}"
        raise InputError(f"--out {out} is {what}. Expected a file, such as sbom.cdx.json.")
    model = None if bundle is None else model_component(bundle, verified(bundle))
    document = environment_document(installed(), now(), model)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.write_text(as_text(document), encoding="utf-8")
        partial.replace(out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{out} cannot be written: {error.strerror}. Give another --out.") from error
    return sum("purl" in component for component in document["components"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("export.sbom"),
        description="Write the software bill of materials of this environment as CycloneDX 1.6 JSON.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--bundle", type=Path, metavar="BUNDLE", help="also list the model of this bundle, verified")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write, or to replace")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="sbom"))
