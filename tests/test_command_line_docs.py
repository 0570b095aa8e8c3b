"""docs/command-line.md has every argument that the parser has, and what the documents show as commands parses."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import command_line
import pytest

from lichen.cli import parser

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_tables_are_those_of_the_parser() -> None:
    text = command_line.DOCUMENT.read_text(encoding="utf-8")
    assert command_line.written(text) == text, "run scripts/command_line.py"


def test_every_argument_has_its_row() -> None:
    commands = command_line.commands()
    assert {"encode", "decode", "completion"} <= commands.keys()
    for command in commands.values():
        table = command_line.table(command)
        options = {o for a in command._actions for o in a.option_strings} - {"-h", "--help"}
        assert set(re.findall(r"(?:`|, `)(-[\w-]+)", table)) == options
        assert "%(" not in table


def test_what_stands_outside_of_the_markers_stays() -> None:
    text = command_line.DOCUMENT.read_text(encoding="utf-8")
    old = text.replace("| `-f`, `--force` |", "| `--old` |")
    assert old != text and command_line.written(old) == text
    with pytest.raises(command_line.TableError, match="begin encode"):
        command_line.written(text.replace("<!-- end encode -->", ""))


def examples(text: str) -> list[list[str]]:
    """The arguments of every `lichen ...` in the blocks of a document, without what the shell takes for itself."""
    blocks = re.findall(r"^```sh\n(.*?)^```|((?:^    .*\n)+)", text, re.M | re.S)
    found = []
    for line in "\n".join(a or b for a, b in blocks).replace("\\\n", "").splitlines():
        for part in re.split(r"\s(?:\||&&|>)\s|\$\(|\)\"", re.sub(r"\s#.*", "", line)):
            if part.strip().startswith("lichen "):
                found.append(shlex.split(part)[1:])
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_parse(document: Path) -> None:
    for arguments in examples(document.read_text(encoding="utf-8")):
        parser().parse_args(arguments)


def test_examples_are_found() -> None:
    found = [a for document in DOCUMENTS for a in examples(document.read_text(encoding="utf-8"))]
    assert len(found) > 20
    assert {a[0] for a in found} == command_line.commands().keys()
    assert ["encode", "-"] in found and ["completion", "bash"] in found
