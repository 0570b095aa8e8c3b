"""EXIF, XMP and ICC profiles are kept, whoever wrote them."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin, features
from sample_pictures import (
    ASTRONAUT,
    CAMERA,
    SRGB,
    XMP,
    cutout,
    exif_bytes,
    saved,
    small,
)

from lichen.errors import DamagedError, LimitError
from lichen.picture import (
    load,
)
from lichen.picture.metadata import MAX_METADATA, compress, decompress


@pytest.mark.parametrize("order", ["<", ">"])
def test_only_the_orientation_changes_in_exif(order: str) -> None:
    exif = Image.Exif()
    exif.endian = order
    exif[ExifTags.Base.Make] = "Lichen & Sons"
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.MakerNote: b"offsets within" * 30}
    raw = exif.tobytes()
    found = load(saved(small(ASTRONAUT), "JPEG", exif=raw)).exif
    assert found is not None
    differ = [i for i, (a, b) in enumerate(zip(raw[6:], found, strict=True)) if a != b]
    assert len(differ) == 1
    again = Image.Exif()
    again.load(found)
    assert again[ExifTags.Base.Orientation] == 1


def test_exif_that_cannot_be_parsed_is_left_out() -> None:
    for exif in (b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert load(saved(small(ASTRONAUT), "JPEG", exif=exif)).exif is None


def test_random_exif_never_fails() -> None:
    rng = random.Random(2)
    raw = exif_bytes(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(100):
            broken = bytearray(raw)
            for _ in range(rng.randint(1, 5)):
                broken[rng.randrange(6, len(raw))] = rng.randrange(256)
            found = load(saved(small(ASTRONAUT, (6, 4)), "PNG", exif=bytes(broken)))
            for format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF"):
                if format != "AVIF" or features.check("avif"):
                    found.save(io.BytesIO(), format)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_metadata_of_files_that_pillow_wrote(format: str) -> None:
    if format == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    options: dict[str, Any] = {"xmp": XMP % 1}
    if format == "PNG":
        options = {"pnginfo": PngImagePlugin.PngInfo()}
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", (XMP % 1).decode())
    if format == "TIFF":
        exif = Image.Exif()
        exif.load(exif_bytes())
        exif[700] = XMP % 1
        options = {"exif": exif}
    found = load(saved(small(ASTRONAUT), format, icc_profile=SRGB, **{"exif": exif_bytes()} | options))
    assert found.icc == SRGB
    assert found.xmp == XMP % 1
    assert found.exif is not None
    assert found.to_pil().getexif()[ExifTags.Base.Make] == "Lichen & Sons"
    if format not in ("TIFF", "AVIF"):
        assert found.exif == exif_bytes()[6:]


def imagemagick() -> str | None:
    """ImageMagick's converter, under the names that its versions have."""
    for name in ("magick", "convert-im6.q16", "convert"):
        if found := shutil.which(name):
            shown = subprocess.run([found, "-version"], capture_output=True, text=True).stdout
            if "ImageMagick" in shown:
                return found
    return None


@pytest.mark.skipif(imagemagick() is None, reason="needs ImageMagick")
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_metadata_of_files_that_imagemagick_wrote(tmp_path: Path, suffix: str) -> None:
    source, target = tmp_path / "source.jpg", tmp_path / f"target.{suffix}"
    source.write_bytes(saved(small(ASTRONAUT), "JPEG", quality=95, icc_profile=SRGB, exif=exif_bytes(6), xmp=XMP % 6))
    subprocess.run([str(imagemagick()), source, target], check=True)
    found = load(target)
    assert (found.width, found.height) == (40, 60)
    assert np.abs(found.pixels.astype(int) - load(source).pixels).mean() < 4
    assert found.icc == SRGB
    if suffix != "webp":  # ImageMagick 6 names that chunk wrongly
        assert found.xmp is not None
        assert b'tiff:Orientation="1"' in found.xmp or suffix == "tif"
    if suffix != "tif":  # ImageMagick writes no EXIF to TIFF
        assert found.exif == exif_bytes(1)[6:]


@pytest.mark.skipif(imagemagick() is None, reason="needs ImageMagick")
def test_pixels_of_files_that_imagemagick_wrote(tmp_path: Path) -> None:
    source = tmp_path / "source.png"
    source.write_bytes(saved(cutout()))
    expected = cutout()
    wanted = {
        "png32:a.png": expected,
        "png8:b.png": None,
        "c.tif": expected,
        "-depth 16 d.png": expected,
        "-depth 16 e.tif": expected,
        "-colorspace Gray -alpha off -depth 16 f.png": None,
        "-alpha off -colorspace CMYK g.tif": expected.convert("RGB"),
        "-alpha off -quality 98 -colorspace CMYK h.jpg": expected.convert("RGB"),
        "-alpha off -monochrome i.png": None,
    }
    for arguments, image in wanted.items():
        subprocess.run([str(imagemagick()), source, *arguments.split()], cwd=tmp_path, check=True)
        found = load(tmp_path / arguments.split()[-1].split(":")[-1])
        assert (found.width, found.height) == (60, 40), arguments
        assert found.grey == ("Gray" in arguments or "monochrome" in arguments), arguments
        if image is not None:
            assert np.abs(np.asarray(found.to_pil()).astype(int) - np.asarray(image)).mean() < 2, arguments


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_metadata_that_exiftool_wrote_and_reads(tmp_path: Path, format: str) -> None:
    source, target = tmp_path / f"source.{format.lower()}", tmp_path / f"target.{format.lower()}"
    small(ASTRONAUT).save(source, format)
    tags = {
        "Orientation#": "6",
        "Artist": "Ansel",
        "ExposureTime": "1/250",
        "GPSLatitude": "47.5",
        "GPSLatitudeRef": "N",
    }
    tags |= {"XMP-dc:Title": "Half Dome", "XMP-tiff:Orientation#": "6"}
    subprocess.run(["exiftool", "-q", *(f"-{k}={v}" for k, v in tags.items()), source], check=True)
    found = load(source)
    assert (found.width, found.height) == (40, 60)
    assert found.save(target) == []
    wanted = ["Orientation", "Artist", "ExposureTime", "GPSLatitude", "XMP-dc:Title", "XMP-tiff:Orientation"]
    command = ["exiftool", "-n", "-json", "-G0", *(f"-{k}" for k in wanted), target]
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[0]
    assert shown["EXIF:Artist"] == "Ansel"
    assert shown["EXIF:ExposureTime"] == 0.004
    assert shown["EXIF:GPSLatitude"] == 47.5
    assert shown["XMP:Title"] == "Half Dome"
    assert shown.get("EXIF:Orientation", 1) == shown.get("XMP:Orientation", 1) == 1
    checked = subprocess.run(["exiftool", "-validate", "-warning", target], capture_output=True, text=True).stdout
    assert "Error" not in checked


def test_raw_profiles_in_png_text() -> None:
    info = PngImagePlugin.PngInfo()
    for name, data in (("exif", exif_bytes(6)), ("xmp", XMP % 6)):
        lines = "\n".join(data.hex()[i : i + 72] for i in range(0, 2 * len(data), 72))
        info.add_text(f"Raw profile type {name}", f"\n{name}\n{len(data):8}\n{lines}\n", zip=True)
    found = load(saved(small(ASTRONAUT), "PNG", pnginfo=info))
    assert (found.width, found.height) == (40, 60)
    assert found.exif == exif_bytes(1)[6:]
    assert found.xmp == XMP % 1


def test_exif_set_on_a_pil_image() -> None:
    image = small(ASTRONAUT)
    image.getexif()[ExifTags.Base.Make] = "Nobody"
    assert load(image).to_pil().getexif()[ExifTags.Base.Make] == "Nobody"


def test_profiles_of_another_space_are_left_out() -> None:
    grey = bytearray(SRGB)
    grey[16:20] = b"GRAY"
    assert load(saved(small(ASTRONAUT), "PNG", icc_profile=bytes(grey))).icc is None
    assert load(saved(small(CAMERA), "PNG", icc_profile=bytes(grey))).icc == bytes(grey)
    assert load(saved(small(CAMERA), "PNG", icc_profile=SRGB)).icc == SRGB
    assert load(saved(small(ASTRONAUT), "PNG", icc_profile=b"short")).icc is None


def test_the_source_stays_as_it_is() -> None:
    image = Image.open(io.BytesIO(saved(small(ASTRONAUT), "JPEG", exif=exif_bytes(6))))
    load(image)
    assert image.size == (60, 40)
    assert image.getexif()[ExifTags.Base.Orientation] == 6


# ---- packed ----------------------------------------------------------------------------------------------------------


def test_metadata_compression() -> None:
    for data in (b"", b"x", XMP * 100, bytes(10**6)):
        assert decompress(compress(data)) == data
    good = compress(XMP)
    for bad in (b"", good[:-1], good + b"x", b"garbage", good[:20] + b"\xff\xff" + good[22:]):
        with pytest.raises(DamagedError):
            decompress(bad)


def test_metadata_bombs() -> None:
    bomb = zlib.compress(bytes(MAX_METADATA + 1), 9)
    assert len(bomb) < 100_000
    with pytest.raises(DamagedError, match="more than"):
        decompress(bomb)
    with pytest.raises(DamagedError, match="more than 10 bytes"):
        decompress(zlib.compress(bytes(11)), limit=10)
    with pytest.raises(LimitError):
        compress(bytes(MAX_METADATA + 1))
