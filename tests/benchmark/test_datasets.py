"""Pictures are found, and what is missing is named with the place to get it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lichen.benchmark import datasets
from lichen.benchmark.datasets import DataError


@pytest.fixture
def kodak(tmp_path):
    folder = tmp_path / "kodak"
    folder.mkdir()
    for i in range(1, 25):
        Image.new("RGB", (4, 4), (i, i, i)).save(folder / f"kodim{i:02}.png")
    return folder


def test_a_known_set_is_found_by_its_folder_and_by_the_folder_above(kodak, monkeypatch):
    assert len(datasets.find("kodak", kodak)) == 24
    assert datasets.find("kodak", kodak.parent)[0] == kodak / "kodim01.png"
    monkeypatch.setenv(datasets.VARIABLE, str(kodak.parent))
    assert datasets.find("kodak")[-1].name == "kodim24.png"


def test_what_is_missing_is_named(kodak, tmp_path, monkeypatch):
    (kodak / "kodim07.png").unlink()
    with pytest.raises(DataError, match=r"23 of 24.*https://"):
        datasets.find("kodak", kodak)
    with pytest.raises(DataError, match="put the pictures kodim"):
        datasets.find("kodak", tmp_path / "nowhere")
    monkeypatch.delenv(datasets.VARIABLE, raising=False)
    with pytest.raises(DataError, match=datasets.VARIABLE):
        datasets.find("kodak")
    with pytest.raises(DataError, match="kodak"):
        datasets.find("nothing", kodak)


def test_any_folder(kodak, tmp_path):
    assert [p.name for p in datasets.folder(kodak)][:2] == ["kodim01.png", "kodim02.png"]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="no pictures"):
        datasets.folder(empty)
    with pytest.raises(DataError, match="no folder"):
        datasets.folder(tmp_path / "nowhere")


def test_pixels_are_rgb(tmp_path):
    Image.fromarray(np.full((3, 5), 7, np.uint8)).save(tmp_path / "grey.png")
    assert datasets.pixels(tmp_path / "grey.png").shape == (3, 5, 3)


def test_other_files_under_known_names_are_noticed(kodak):
    assert len(datasets.others("kodak", datasets.find("kodak", kodak))) == 24


def test_sets_without_names_of_their_own_need_a_folder_of_their_name(tmp_path):
    for folder in (tmp_path, tmp_path / "tecnick"):
        folder.mkdir(exist_ok=True)
        for i in range(40):
            Image.new("RGB", (4, 4)).save(folder / f"{i}.png")
    assert datasets.find("tecnick", tmp_path)[0].parent == tmp_path / "tecnick"
    with pytest.raises(DataError, match="put the pictures"):
        datasets.find("clic2020-mobile", tmp_path)


def test_every_set_says_where_it_is():
    for dataset in datasets.DATASETS.values():
        assert dataset.page.startswith("https://") and dataset.number != 0
    assert len(datasets.DATASETS["kodak"].sums) == 24


def test_a_set_of_unknown_size_is_taken_as_it_is(tmp_path):
    (tmp_path / "liu4k").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "liu4k" / "1.png")
    assert len(datasets.find("liu4k", tmp_path)) == 1
    (tmp_path / "liu4k" / "1.png").unlink()
    with pytest.raises(DataError, match="get LIU4K, test, all pictures"):
        datasets.find("liu4k", tmp_path)
