"""docs/benchmark.md: its tables are those of the store beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import benchmark_docs
import made_up
import pytest
from pages import TableError

from lichen.benchmark import codecs
from lichen.benchmark.report import latest
from lichen.benchmark.store import Store

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def page():
    return (DOCS / "benchmark.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def store():
    return Store(DOCS / "benchmark.jsonl")


def test_the_page_has_what_is_in_the_store(page, store):
    assert benchmark_docs.filled(page, list(store.rows.values())) == page


def test_the_store_has_the_weights_that_ship(store):
    versions = {r.codec: r.version for r in latest(store.rows.values())}
    for name in ("lichen", "lichen-ms-ssim"):
        codec = codecs.create(name)
        assert versions[name] == codec.version


def test_tables_are_filled_from_a_store(tmp_path, monkeypatch, page):
    store = Store(tmp_path / "s.jsonl")
    store.path.write_text("".join(r.to_json() + "\n" for r in made_up.rows()))
    copy = tmp_path / "page.md"
    copy.write_text(page, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["x", str(store.path), "--page", str(copy)])
    assert benchmark_docs.main() == 0
    once = copy.read_text(encoding="utf-8")
    assert "lichen, measured" in once and "| webp | -25.0 %" in once
    assert benchmark_docs.main() == 0
    assert copy.read_text(encoding="utf-8") == once


def test_a_page_without_the_places_is_refused():
    with pytest.raises(TableError, match="no place for headlines"):
        benchmark_docs.filled("text", made_up.rows())
