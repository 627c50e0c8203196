"""The commands: plain functions that get their collaborators as arguments, and what reads the command line."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typer import Typer


def command_line(words: Sequence[str]) -> Typer:
    """Return what reads these words: all commands, or the one that the first word names.

    typer looks at the options of each, which takes longer than all else that it does.
    """
    from runnable_ci.cli.app import app

    named = [command for command in app.registered_commands if command.name in words[:1]]
    if not named:
        return app
    alone = copy(app)
    alone.registered_commands = named
    return alone
