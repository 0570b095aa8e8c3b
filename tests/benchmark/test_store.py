"""Rows there and back, and files that are no stores."""

from __future__ import annotations

import dataclasses
import math

import made_up
import pytest

from lichen.benchmark.store import Row, Store, StoreError


def test_rows_through_the_store(tmp_path):
    store = Store(tmp_path / "s.jsonl")
    for row in made_up.rows():
        store.add(row)
    assert list(Store(store.path).rows.values()) == made_up.rows()


def test_lossless_rows():
    row = dataclasses.replace(made_up.rows()[0], psnr=math.inf, psnr_y=math.inf, psnr_yuv=math.inf)
    assert Row.from_json(row.to_json()) == row
    assert "Infinity" not in row.to_json()


def test_something_else_is_no_store(tmp_path):
    path = tmp_path / "readme.md"
    path.write_text("# title\ntext\n")
    with pytest.raises(StoreError, match="no store"):
        Store(path)
