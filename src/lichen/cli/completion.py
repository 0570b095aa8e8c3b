"""`lichen completion`: a script that makes a shell complete commands, options, models and file names."""

from __future__ import annotations

import argparse
from typing import Any

from lichen.container import MODELS

FILES = {"IN", "OUT", "FILE", "PICTURE"}  # metavars of what is completed by files
FOLDERS = {"DIR"}


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser(
        "completion",
        help="a completion script for a shell",
        description='Print a completion script, for instance: eval "$(lichen completion bash)" in ~/.bashrc.',
    )
    p.add_argument("shell", choices=["bash", "zsh", "tcsh"], help="the shell that reads it")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from lichen.cli import parser

    whole = parser()
    commands = next(a for a in whole._actions if isinstance(a, argparse._SubParsersAction))
    for command in commands.choices.values():
        for action in command._actions:
            if action.metavar in FILES:
                action.complete = shtab.FILE
            elif action.metavar in FOLDERS:
                action.complete = shtab.DIRECTORY
            elif action.dest == "model":
                action.choices = list(MODELS.values())
    print(shtab.complete(whole, args.shell))
    return 0
