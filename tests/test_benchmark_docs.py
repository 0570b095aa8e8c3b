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


def test_lines_of_one_codec_change_alone(tmp_path, monkeypatch):
    store = Store(tmp_path / "s.jsonl")
    store.path.write_text("".join(r.to_json() + "\n" for r in made_up.rows()))
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["x", str(store.path), "--page", str(page), "--only", "webp"])
    assert benchmark_docs.main() == 0
    before, after = PAGE.read_text(encoding="utf-8"), page.read_text(encoding="utf-8")
    kodak = [benchmark_docs.body(text, "kodak", "benchmark_docs.py").splitlines() for text in (before, after)]
    changed = [new for old, new in zip(*kodak, strict=True) if old != new]
    assert changed
    assert all(line.startswith("| webp |") for line in changed)
    assert any(line.startswith("| webp | -25.0 %") for line in changed)
    checks = [benchmark_docs.body(text, "checks", "benchmark_docs.py") for text in (before, after)]
    assert checks[0] == checks[1]


def test_a_codec_that_a_table_lacks_comes_at_its_end():
    old = "of a\n\n| codec | x |\n|---|---|\n| a | 1 |\n\nof b\n\n| codec | x |\n|---|---|\n| a | 1 |"
    new = old.replace("| a | 1 |", "| a | 2 |\n| new | 3 |", 1)
    assert benchmark_docs.merged(old, new, ["new"]) == old.replace("| a | 1 |", "| a | 1 |\n| new | 3 |", 1)
    assert benchmark_docs.merged(old, new, ["a", "new"]) == new
    second = "| a | 2 |".join(old.rsplit("| a | 1 |", 1))
    assert benchmark_docs.merged(old, second, ["a"]) == second


def test_a_page_without_the_places_is_refused():
    with pytest.raises(SystemExit, match="no place for headlines"):
        benchmark_docs.fill("text", "headlines", "table")
