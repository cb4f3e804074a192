"""`python -m runtime.audit`: check an audit log, or make a key.

python -m runtime.audit verify LOG [--key FILE] [--anchor N:DIGEST]
python -m runtime.audit key FILE
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from stageproof.runtime.audit.chain import make_key
from stageproof.runtime.audit.verification import check
from stageproof.runtime.cli.exit_status import exit_status
from stageproof.runtime.errors import AuditError
from stageproof.runtime.text.hints import program


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 verified, 1 the log was changed or cut, 2 usage."""
    parser = argparse.ArgumentParser(prog=program("runtime.audit"), description="Check an audit log, or make a key.")
    actions = parser.add_subparsers(required=True, dest="action")
    action = actions.add_parser("verify", help="check every line against the key, the head file and an anchor")
    action.add_argument("log", type=Path, metavar="LOG", help="what --audit or Predictor(audit=…) wrote")
    action.add_argument("--key", type=Path, metavar="FILE", help="the log's key (default: LOG.key)")
    action.add_argument("--anchor", metavar="N:DIGEST", help="printed before: the log must still begin as it was then")
    action.add_argument("--head", metavar="DIGEST", help="a digest printed before, which must still be in the log")
    action = actions.add_parser("key", help="make a key that only you may read, for --audit-key")
    action.add_argument("file", type=Path, metavar="FILE", help="a new file")
    options = parser.parse_args(argv)
    try:
        if options.action == "key":
            print(f"{options.file}: key {make_key(options.file).name}")
            return 0
        if options.anchor and not re.fullmatch("[0-9]+:[0-9a-f]{64}", options.anchor):
            parser.error(f"--anchor is {options.anchor!r}, expected N:DIGEST as verify prints it")
        if not options.log.is_file():
            parser.error(f"{options.log} does not exist, or is no file")
        report = check(options.log, head=options.head, anchor=options.anchor, key=options.key)
    except AuditError as error:
        print(f"AuditError: {error}", file=sys.stderr)
        return 2 if options.action == "key" else 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
