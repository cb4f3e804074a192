"""`python -m runtime.audit`: verify an audit log, or create a key.

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
    """Exit status: 0 verified, 1 verification failed, 2 usage."""
    parser = argparse.ArgumentParser(prog=program("runtime.audit"), description="Verify an audit log or create a key.")
    actions = parser.add_subparsers(required=True, dest="action")
    action = actions.add_parser("verify", help="verify every line against the key, the head file and an anchor")
    action.add_argument("log", type=Path, metavar="LOG", help="file that --audit or Predictor(audit=…) wrote")
    action.add_argument("--key", type=Path, metavar="FILE", help="the log's key (default: LOG.key)")
    action.add_argument("--anchor", metavar="N:DIGEST", help="earlier anchor, which the log must still contain")
    action.add_argument("--head", metavar="DIGEST", help="earlier digest, which the log must still contain")
    action = actions.add_parser("key", help="create a key for --audit-key, readable by its owner only")
    action.add_argument("file", type=Path, metavar="FILE", help="a new file")
    options = parser.parse_args(argv)
    try:
        if options.action == "key":
            print(f"{options.file}: key {make_key(options.file).name}")
            return 0
        if options.anchor and not re.fullmatch("[0-9]+:[0-9a-f]{64}", options.anchor):
            parser.error(f"--anchor is {options.anchor!r}, expected N:DIGEST as verify prints it")
        if not options.log.is_file():
            parser.error(f"{options.log} does not exist or is not a file")
        report = check(options.log, head=options.head, anchor=options.anchor, key=options.key)
    except AuditError as error:
        print(f"AuditError: {error}", file=sys.stderr)
        return 2 if options.action == "key" else 1
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
