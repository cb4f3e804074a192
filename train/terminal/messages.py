"""`shown`: the messages and progress bars of a command that has rich. Does not import rich before it is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from stageproof.runtime.cli import messages


@contextmanager
def shown() -> Iterator[None]:
    """While it lasts, log records are printed on standard error, and progress bars drawn there if it is a terminal.

    Nothing is printed in the processes of torchrun whose rank is not 0. Without rich there are no bars. Also a
    decorator, for the main function of a command.
    """
    if messages.is_shown() or ("TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("RANK", "0") != "0"):
        yield
        return
    try:
        from stageproof.train.terminal.rich_handler import on_stderr as context
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        context = messages.shown  # the command ends with an error that says what to install
    with context():
        yield
