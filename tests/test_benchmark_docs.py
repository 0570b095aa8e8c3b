"""docs/benchmark.md: its headline table is what the code gives, and the script that fills it fills it."""

from __future__ import annotations

import sys
from pathlib import Path

import benchmark_docs
import made_up
import pytest

from lichen.benchmark import headlines
from lichen.benchmark.runner import Store

PAGE = Path(__file__).parents[1] / "docs" / "benchmark.md"


def test_published_columns_are_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    for line in headlines.markdown().splitlines()[2:]:
        assert line.rstrip("|").rstrip() in text


def test_tables_are_filled_from_a_store(tmp_path, monkeypatch):
    store = Store(tmp_path / "s.jsonl")
    store.path.write_text("".join(r.to_json() + "\n" for r in made_up.rows()))
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["x", str(store.path), "--page", str(page)])
    assert benchmark_docs.main() == 0
    text = page.read_text(encoding="utf-8")
    assert "lichen, measured" in text and "| webp | -25.0 %" in text
    once = text
    assert benchmark_docs.main() == 0
    assert page.read_text(encoding="utf-8") == once


def test_a_page_without_the_places_is_refused():
    with pytest.raises(SystemExit, match="no place for headlines"):
        benchmark_docs.fill("text", "headlines", "table")
