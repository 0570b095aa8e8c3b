"""The tables of docs/command-line.md: every command's arguments, as the parser has them.

    python scripts/command_line.py

A table stands between two marker comments; what is outside of them stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pages import TableError, replaced

from lichen.atomic import write_atomic
from lichen.cli import parser

DOCUMENT = Path(__file__).parent.parent / "docs" / "command-line.md"


def commands() -> dict[str, argparse.ArgumentParser]:
    """All of them by their names."""
    action = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def table(command: argparse.ArgumentParser) -> str:
    """A row an argument: how it is written, and what its help says."""
    formatter = command._get_formatter()
    rows = []
    for action in command._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
        names = ", ".join(f"`{name}`" for name in action.option_strings[:-1])
        last = f"`{' '.join([*action.option_strings[-1:], value]).strip()}`"
        text = formatter._expand_help(action).replace("|", "\\|")
        rows.append(f"| {', '.join(filter(None, [names, last]))} | {text} |")
    return "\n".join(["| argument | |", "|---|---|", *rows]) if rows else "It takes no argument."


def written(text: str) -> str:
    """The document's text with the tables of today. TableError where a command has no place in it."""
    for name, command in commands().items():
        text = replaced(text, name, table(command), "command_line.py")
    return text


def main() -> int:
    try:
        write_atomic(DOCUMENT, written(DOCUMENT.read_text(encoding="utf-8")).encode())
    except (TableError, OSError) as e:
        print(f"command_line: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
