"""Tables in pages of docs/, which scripts write: each stands between two marker comments, the rest stays as it is."""

from __future__ import annotations

from pathlib import Path

from lichen.atomic import write_atomic
from lichen.errors import LichenError


class TableError(LichenError):
    """A page without the markers of a table."""


def replaced(text: str, name: str, body: str, script: str) -> str:
    """A page's text with another body between the markers of a table. TableError where it has none."""
    begin, end = f"<!-- begin {name}: scripts/{script} -->", f"<!-- end {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise TableError(f"the page has no place for {name}: put '{begin}' and '{end}' there")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{body}\n\n{end}{after}"


def write(page: Path, name: str, body: str, script: str) -> None:
    """Put a table into a page. TableError where it has no place for it."""
    write_atomic(page, replaced(page.read_text(encoding="utf-8"), name, body, script).encode())
