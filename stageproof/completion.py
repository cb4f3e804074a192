"""`stageproof completion bash|zsh`: print a shell script that completes commands, options and file names.

    eval "$(stageproof completion bash)"        # in ~/.bashrc

Options are extracted from the --help output of each command, so they always match it. For a command whose packages are
not installed, only the name is completed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Sequence
from importlib import import_module

from stageproof.commands import COMMANDS

_SCRIPT = """\
{zsh}_stageproof() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    else
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=()
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;
        *) if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "$words" -- "$word"));
           else COMPREPLY=($(compgen -f -- "$word")); fi ;;
    esac
}}
complete -o filenames -F _stageproof stageproof
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the script. Exit status."""
    parser = argparse.ArgumentParser(
        prog="stageproof completion",
        description='Print a completion script. In ~/.bashrc: eval "$(stageproof completion bash)"',
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    shell = parser.parse_args(argv).shell
    cases = [
        f'            {name}) words="{" ".join(_options(command.module))}" ;;' for name, command in COMMANDS.items()
    ]
    zsh = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    print(_SCRIPT.format(zsh=zsh, commands=" ".join(COMMANDS), cases="\n".join(cases)), end="")
    return 0


def _options(module: str) -> list[str]:
    """The long options in a command's --help output, in order."""
    output = io.StringIO()
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
        contextlib.suppress(SystemExit, ImportError),
    ):
        import_module(module).main(["--help"])
    return list(dict.fromkeys(re.findall(r"(?<![\w-])--[a-z][\w.-]*", output.getvalue())))
