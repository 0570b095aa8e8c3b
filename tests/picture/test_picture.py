"""What is kept in which format, what is named as left out; chunks."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from sample_pictures import (
    ASTRONAUT,
    CAMERA,
    SRGB,
    small,
    whole,
)

from lichen.errors import LichenError, PictureError
from lichen.picture import (
    Picture,
    from_chunks,
    load,
    to_chunks,
)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("path", [None, ASTRONAUT, CAMERA], ids=["alpha", "rgb", "grey"])
def test_lossless_formats_keep_everything(tmp_path: Path, suffix: str, path: Path | None) -> None:
    picture = whole(path)
    target = tmp_path / f"picture.{suffix}"
    assert picture.save(target) == []
    again = load(target)
    shown = again.to_pil()
    assert np.array_equal(np.asarray(shown.convert("RGBA")), np.asarray(picture.to_pil().convert("RGBA")))
    assert again.icc == SRGB
    assert again.xmp == picture.xmp
    if suffix != "tif":
        assert again.exif == picture.exif
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        assert dict(shown.getexif().get_ifd(tag)) == dict(picture.to_pil().getexif().get_ifd(tag))
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_jpeg_keeps_the_metadata(tmp_path: Path) -> None:
    picture = whole(ASTRONAUT)
    assert picture.save(tmp_path / "a.JPG") == []
    again = load(tmp_path / "a.JPG")
    assert (again.icc, again.exif, again.xmp) == (picture.icc, picture.exif, picture.xmp)
    assert np.abs(again.pixels.astype(int) - picture.pixels).mean() < 3


def test_metadata_beyond_jpegs_segments_is_named() -> None:
    picture = whole(ASTRONAUT)
    picture.exif = (picture.exif or b"") + bytes(70_000)
    picture.xmp = (picture.xmp or b"").ljust(70_000)
    buffer = io.BytesIO()
    assert picture.save(buffer, "JPEG") == ["EXIF", "XMP"]
    assert load(buffer.getvalue()).icc == SRGB


def test_metadata_that_a_format_cannot_hold_is_named() -> None:
    picture = whole(ASTRONAUT)
    assert picture.save(io.BytesIO(), "BMP") == ["ICC profile", "EXIF", "XMP"]
    assert picture.save(io.BytesIO(), "TIFF", compression="tiff_lzw") == ["EXIF"]
    picture.xmp, picture.exif = b"\xff\xfe<\0", b"garbage"
    assert picture.save(io.BytesIO(), "PNG") == ["XMP"]
    assert picture.save(io.BytesIO(), "TIFF") == ["EXIF"]


def test_transparency_is_not_lost_silently(tmp_path: Path) -> None:
    for suffix in ("jpg", "ppm", "bmp", "gif"):
        with pytest.raises(PictureError, match="transparency"):
            whole().save(tmp_path / f"a.{suffix}")
        with pytest.raises(PictureError, match="transparency"):
            whole().to_depth(16).save(tmp_path / f"a.{suffix}")
    assert list(tmp_path.iterdir()) == []
    opaque = load(small(ASTRONAUT).convert("RGBA"))
    for depth in (8, 16):
        assert opaque.to_depth(depth).save(tmp_path / "opaque.jpg") == ["16 bits a channel"] * (depth == 16)


def test_icons_are_no_pictures(tmp_path: Path) -> None:
    for suffix in ("ico", "icns"):
        with pytest.raises(PictureError, match="icons of set sizes"):
            load(small(ASTRONAUT)).save(tmp_path / f"a.{suffix}")


def test_a_grey_profile_goes_where_grey_becomes_rgb() -> None:
    profile = bytearray(SRGB)
    profile[16:20] = b"GRAY"
    grey = Picture(load(small(ASTRONAUT).convert("L")).pixels, None, bytes(profile))
    assert grey.save(io.BytesIO(), "PNG") == []
    assert grey.save(io.BytesIO(), "WEBP") == ["ICC profile"]
    file = io.BytesIO()
    grey.save(file, "WEBP")
    assert "icc_profile" not in Image.open(file).info


def test_options_go_to_pillow() -> None:
    lossy, lossless = io.BytesIO(), io.BytesIO()
    picture = load(ASTRONAUT)
    picture.save(lossy, "webp", quality=50)
    picture.save(lossless, ".webp")
    assert len(lossy.getvalue()) < len(lossless.getvalue()) / 5
    with pytest.raises(PictureError, match="cannot write"):
        picture.save(io.BytesIO(), "JPEG", quality="nonsense")


@pytest.mark.parametrize(("target", "format"), [("a.xyz", None), ("noname", None), (None, None), (None, "NOPE")])
def test_unknown_formats(tmp_path: Path, target: str | None, format: str | None) -> None:
    with pytest.raises(PictureError):
        load(CAMERA).save(tmp_path / target if target else io.BytesIO(), format)


def test_formats_by_their_suffixes_names() -> None:
    for name in ("JPG", "jpeg", "tif", "Png"):
        load(CAMERA).save(io.BytesIO(), name)


def test_chunks_round_trip() -> None:
    picture = whole()
    chunks = to_chunks(picture)
    assert list(chunks) == ["ALPH", "ICCP", "EXIF", "XMP "]
    again = from_chunks(picture.pixels, chunks)
    assert again.alpha is not None
    assert np.array_equal(again.alpha, picture.alpha)
    assert (again.icc, again.exif, again.xmp) == (picture.icc, picture.exif, picture.xmp)
    assert to_chunks(load(CAMERA)) == {}
    with pytest.raises(LichenError):
        from_chunks(picture.pixels, {"EXIF": b"not zlib"})
