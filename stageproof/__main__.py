"""The command line `stageproof COMMAND …`, also `python -m stageproof`: runs the command of that name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from stageproof import __version__
from stageproof.commands import COMMANDS
from stageproof.runtime.cli.exit_status import exit_status
from stageproof.runtime.text.hints import nearest


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command named by the first argument."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        parser.error(f"there is no command {arguments[0]!r}.{nearest(arguments[0], COMMANDS)} See stageproof --help.")
    parser.parse_args(arguments[:1])  # --help and --version exit here
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    command = COMMANDS[arguments[0]]
    return exit_status(lambda: int(import_module(command.module).main(arguments[1:])), extra=command.extra)


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{command.summary}" for name, command in COMMANDS.items()]
    parser = argparse.ArgumentParser(
        prog="stageproof",
        description="Train, export, verify and run a classifier of brain-MRI slices.\nResearch use only.",
        epilog="\n".join(["commands:", *lines, "", "stageproof COMMAND --help lists its options."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"stageproof {__version__}")
    parser.add_argument("command", nargs="?", metavar="COMMAND", help="a command listed below, then its options")
    return parser


def run() -> int:
    """Exit status; entry point of the installed command, which does not import from the working folder."""
    return main()


if __name__ == "__main__":
    sys.exit(run())
