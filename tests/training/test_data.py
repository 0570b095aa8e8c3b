import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from lichen.training.data import Crops, DataError, Loader, find_pictures, load_pictures, random_crops, to_floats

Photo = npt.NDArray[np.uint8]


def save(folder: Path, name: str, pixels: Photo) -> Path:
    folder.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def test_pictures_are_decoded_once_and_every_tenth_is_held_out(photo: Photo, tmp_path: Path) -> None:
    pieces = [photo[16 * k :, 8 * k :][: 64 + k, :80] for k in range(12)]
    for k, piece in enumerate(pieces):
        save(tmp_path / "p", f"{k:02}.png", piece)
    save(tmp_path / "p" / "sub", "grey.png", photo[:70, :90, 0])
    found = load_pictures([tmp_path / "p"], tmp_path / "cache", 64)
    assert [np.array_equal(a, b) for a, b in zip(found.held_out, pieces[9:10], strict=True)] == [True]
    expected = [*pieces[:9], *pieces[10:], np.repeat(photo[:70, :90, :1], 3, axis=2)]
    assert all(np.array_equal(a, b) for a, b in zip(found.training, expected, strict=True))

    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}
    assert {p.suffix for p in stamps} == {".u8", ".json"}
    again = load_pictures([tmp_path / "p", tmp_path / "p" / "sub"], tmp_path / "cache", 64)  # no picture counts twice
    assert len(again.training) == 12
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == stamps

    (tmp_path / "cache" / next(p.name for p in stamps if p.suffix == ".u8")).unlink()  # its index alone is no cache
    assert np.array_equal(load_pictures([tmp_path / "p"], tmp_path / "cache", 64).training[0], pieces[0])

    save(tmp_path / "p", "03.png", photo[:64, :64])
    changed = load_pictures([tmp_path / "p"], tmp_path / "cache", 64)
    assert changed.training[3].shape == (64, 64, 3)
    assert again.identity == found.identity != changed.identity


def test_upright_and_alpha(photo: Photo, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned
    Image.fromarray(photo[:64, :100]).save(tmp_path / "a.png", exif=exif)
    Image.fromarray(np.dstack([photo[:64, :100], photo[:64, :100, 0]])).save(tmp_path / "b.png")
    found = load_pictures([tmp_path], tmp_path / "cache", 64)
    assert np.array_equal(found.training[0], np.rot90(photo[:64, :100], -1))
    assert np.array_equal(found.held_out[0], photo[:64, :100])


def test_folders_that_cannot_be_trained_on(photo: Photo, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is no folder: give --data"):
        find_pictures([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"empty has no pictures: .*\.png"):
        load_pictures([tmp_path / "empty"], tmp_path / "cache", 64)
    save(tmp_path / "one", "a.png", photo[:64, :64])
    with pytest.raises(DataError, match="one picture is not enough"):
        load_pictures([tmp_path / "one"], tmp_path / "cache", 64)

    for k in range(5):
        save(tmp_path / "small", f"{k}.png", photo[: 60 if k else 64, :100])
    with pytest.raises(
        DataError, match=r"4 of 5 pictures, .*1\.png \(100x60\), .*\.\.\., are smaller than a crop of 64"
    ):
        load_pictures([tmp_path / "small"], tmp_path / "cache", 64)
    load_pictures([tmp_path / "small"], tmp_path / "cache", 32)
    with pytest.raises(DataError, match="smaller than a crop of 64x64: take them out, or give less"):  # decoded now
        load_pictures([tmp_path / "small"], tmp_path / "cache", 64)


def test_broken_pictures_are_named(photo: Photo, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / "p", name, photo[:64, :64])
    (tmp_path / "p" / "b.png").write_bytes(b"this is text")
    with pytest.raises(DataError, match=r"1 of 3 pictures, .*b\.png .* cannot be read"):
        load_pictures([tmp_path / "p"], tmp_path / "cache", 64)
    whole = (tmp_path / "p" / "a.png").read_bytes()
    (tmp_path / "p" / "b.png").write_bytes(whole[: len(whole) // 2])  # its header is whole
    with pytest.raises(DataError, match=r"mend .*b\.png or take it out of the folder"):
        load_pictures([tmp_path / "p"], tmp_path / "cache", 64)
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written(photo: Photo, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "p", name, photo[:64, :64])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="--cache"):
        load_pictures([tmp_path / "p"], tmp_path / "file" / "cache", 64)


def contains(photo: Photo, crop: Photo) -> bool:
    """Whether a crop, turned any way, is a piece of the photograph. (64, 64, 3)"""
    views = np.lib.stride_tricks.sliding_window_view(photo[..., 0], (64,), axis=(1,))
    for turned in (crop, crop.transpose(1, 0, 2)):
        for c in (turned, turned[:, ::-1], turned[::-1], turned[::-1, ::-1]):
            for i, j in zip(*np.nonzero((views[:-63] == c[0, :, 0]).all(-1)), strict=True):
                if np.array_equal(photo[i : i + 64, j : j + 64], c):
                    return True
    return False


def test_crops_are_pieces_of_pictures_and_depend_on_their_seed_alone(photo: Photo) -> None:
    crops = Crops([photo[:200, :150], photo[200:, 100:]])
    drawn = crops.draw(8, 64, [0, 1, 2])
    assert drawn.shape == (8, 64, 64, 3)
    assert all(contains(photo, crop) for crop in drawn)
    assert np.array_equal(drawn, crops.draw(8, 64, [0, 1, 2]))
    assert not np.array_equal(drawn, crops.draw(8, 64, [0, 1, 3]))
    floats = random_crops(crops.pictures, 8, 64, [0, 1, 2])
    assert torch.equal(floats, torch.from_numpy(drawn).permute(0, 3, 1, 2) / 255)
    assert torch.equal(floats, to_floats(torch.from_numpy(drawn)))


def test_larger_pictures_are_drawn_by_the_root_of_their_area() -> None:
    small, large = np.zeros((64, 64, 3), np.uint8), np.full((128, 128, 3), 255, np.uint8)
    drawn = Crops([small, large]).draw(3000, 64, [0], places=1)[:, 0, 0, 0]
    assert abs((drawn > 0).mean() - 2 / 3) < 0.03


def test_detail_wins() -> None:
    rng = np.random.default_rng(0)
    picture = np.zeros((64, 640, 3), np.uint8)
    picture[:, 320:] = rng.integers(0, 256, (64, 320, 3))
    one, many = (Crops([picture]).draw(200, 64, [0], places=n).std((1, 2, 3)) for n in (1, 4))
    assert many.mean() > one.mean() + 10


def test_rescaled_crops_are_finer(photo: Photo) -> None:
    plain, finer = (Crops([photo]).draw(64, 64, [3], places=1, rescale=r).astype(float) for r in (1.0, 4.0))
    assert finer.shape == plain.shape
    steps = [np.abs(np.diff(v, axis=1)).mean() / v.std() for v in (plain, finer)]
    assert steps[1] > 1.2 * steps[0]
    assert Crops([photo[:100, :70]]).draw(8, 64, [3], rescale=50.0).shape == (8, 64, 64, 3)  # never beyond the picture


def test_one_crop_in_so_many_is_hard(photo: Photo) -> None:
    crops = Crops([photo])
    ramp = Crops([np.repeat(np.arange(128, dtype=np.uint8)[:, None, None], 128, axis=1).repeat(3, axis=2)])
    steps = [np.abs(np.diff(ramp.draw(64, 64, [3], hard_every=n).astype(float), axis=1)) for n in (0, 1)]
    assert steps[0].max() == 1
    assert 2 < steps[1].mean() < 20
    some = [crops.draw(1, 64, [k], hard_every=4)[0] for k in range(100)]
    changed = [not np.array_equal(some[k], crops.draw(1, 64, [k])[0]) for k in range(100)]
    assert 10 < sum(changed) < 45


def test_the_loader_works_ahead_and_measures_waiting() -> None:
    made, gate = [], threading.Event()

    def make(step: int) -> Photo:
        if step == 5:
            gate.wait(10)
        made.append(step)
        return np.full((1, 2, 2, 3), step, np.uint8)

    with Loader(make, range(3, 9), threads=1) as loader:
        assert int(loader.next()[0, 0, 0, 0]) == 3
        assert int(loader.next()[0, 0, 0, 0]) == 4
        before = loader.waited
        threading.Timer(0.2, gate.set).start()
        assert int(loader.next()[0, 0, 0, 0]) == 5
        assert 0.1 < loader.waited - before < 5
        assert [int(loader.next()[0, 0, 0, 0]) for _ in range(3)] == [6, 7, 8]
    assert made == [3, 4, 5, 6, 7, 8]


def test_an_error_in_the_loader_reaches_the_training() -> None:
    def make(step: int) -> Photo:
        raise DataError("the disk is gone")

    with Loader(make, range(9), threads=2) as loader, pytest.raises(DataError, match="the disk is gone"):
        loader.next()
