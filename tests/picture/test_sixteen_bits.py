"""PNG and TIFF of 16 bits a channel: what is written, as others read it; what is read, in others' layouts."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from PIL import TiffImagePlugin as T

from lichen.errors import LimitError, PictureError
from lichen.picture import load, sixteen_bits

imagecodecs = pytest.importorskip("imagecodecs")
tifffile = pytest.importorskip("tifffile")

DATA = Path(__file__).parents[1] / "data" / "pictures"
COLOUR: npt.NDArray[np.uint16] = np.fromfile(DATA / "master.rgba", "<u2").reshape(24, 36, 4)
SAMPLES = {"grey": COLOUR[..., :1], "grey, alpha": COLOUR[..., ::3], "RGB": COLOUR[..., :3], "RGBA": COLOUR}


@pytest.mark.parametrize("rows", [1, 5, 24])
@pytest.mark.parametrize("kind", SAMPLES)
def test_tiff_that_is_written_is_what_libtiff_and_tifffile_read(
    kind: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = SAMPLES[kind]
    monkeypatch.setattr(sixteen_bits, "_STRIP", rows * samples[0].nbytes)
    exif = Image.Exif()
    exif[0x010E] = "coffee"
    data = sixteen_bits.write_tiff(samples, exif, b"a profile", b"<x/>")
    assert np.array_equal(imagecodecs.tiff_decode(data).reshape(samples.shape), samples)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        (page,) = file.pages
        assert np.array_equal(page.asarray().reshape(samples.shape), samples)
        assert page.photometric.name == ("RGB" if "RGB" in kind else "MINISBLACK")
        assert len(page.dataoffsets) == -(-24 // rows)
        assert page.extrasamples == ((2,) if samples.shape[2] in (2, 4) else ())
        assert page.tags["ImageDescription"].value == "coffee"
        assert (page.tags["InterColorProfile"].value, page.tags["XMP"].value) == (b"a profile", b"<x/>")
    found = sixteen_bits.tiff_tags(io.BytesIO(data))
    assert found is not None
    assert np.array_equal(sixteen_bits.read_tiff(io.BytesIO(data), found), samples)


@pytest.mark.parametrize("kind", SAMPLES)
def test_png_that_is_written_is_what_libpng_and_pillow_read(kind: str) -> None:
    samples = SAMPLES[kind]
    like = io.BytesIO()
    Image.new("L", (1, 1)).save(like, "PNG", icc_profile=b"a profile" * 20, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    data = sixteen_bits.write_png(samples, like.getvalue())
    assert np.array_equal(imagecodecs.png_decode(data).reshape(samples.shape), samples)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (36, 24)
        assert image.info["icc_profile"] == b"a profile" * 20
        assert image.info["exif"].endswith(b"MM\0*\0\0\0\x08\0\0\0\0\0\0")
        image.load()  # checks the sums of all chunks


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("samples", "options", "wanted"),
    [
        (COLOUR[..., :3], {"photometric": "rgb"}, COLOUR[..., :3]),
        (COLOUR[..., :3], {"photometric": "rgb", "compression": "lzw", "predictor": True}, COLOUR[..., :3]),
        (COLOUR, {"photometric": "rgb", "extrasamples": ["unassalpha"]}, COLOUR),
        (COLOUR, {"photometric": "rgb", "extrasamples": ["unspecified"]}, COLOUR[..., :3]),
        (COLOUR[..., 0], {"photometric": "minisblack"}, COLOUR[..., :1]),
        (COLOUR[..., 0], {"photometric": "miniswhite"}, 65535 - COLOUR[..., :1]),
        (np.moveaxis(COLOUR, 2, 0), {"photometric": "rgb", "planarconfig": "separate", "extrasamples": [2]}, COLOUR),
    ],
)
def test_layouts_of_tiff(order: str, samples: Any, options: dict[str, Any], wanted: Any) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, samples, byteorder=order, metadata=None, **options)
    found = load(file.getvalue())
    channels = [found.pixels] if found.alpha is None else [found.pixels, found.alpha]
    assert np.array_equal(np.dstack(channels), wanted)


@pytest.mark.parametrize(
    "samples",
    [COLOUR[..., :3].astype(np.uint8), COLOUR[..., 0].astype(np.int16), COLOUR[..., 0].astype(np.float32), COLOUR > 9],
    ids=["8 bits", "signed", "floats", "bits"],
)
def test_tiff_of_other_kinds_is_left_to_pillow(samples: Any) -> None:
    file = io.BytesIO()
    tifffile.imwrite(file, samples[..., :3] if samples.ndim == 3 else samples, metadata=None)
    assert sixteen_bits.tiff_tags(file) is None
    for path in ("im-cmyk.tif", "im-rgba.tif", "im-rgb-16.png", "im-gray.jpg"):
        assert sixteen_bits.tiff_tags(io.BytesIO((DATA / path).read_bytes())) is None


@pytest.mark.parametrize("deep", [False, True])
def test_big_tiff(deep: bool) -> None:
    samples = COLOUR[..., :3] if deep else (COLOUR[..., :3] >> 8).astype(np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(file, samples, bigtiff=True, photometric="rgb", metadata=None)
    picture = load(file.getvalue())
    assert picture.depth == (16 if deep else 8) and np.array_equal(picture.pixels, samples)


def tiff(width: int, height: int, data: bytes, tile: int = 0) -> bytes:
    """A TIFF file of 16-bit RGB that claims these sizes, in one strip or one tile."""
    tags = T.ImageFileDirectory_v2()
    tags[T.IMAGEWIDTH], tags[T.IMAGELENGTH], tags[T.SAMPLESPERPIXEL] = width, height, 3
    tags[T.BITSPERSAMPLE], tags[T.PHOTOMETRIC_INTERPRETATION], tags[T.COMPRESSION] = (16, 16, 16), 2, 8
    offset, length = (T.TILEOFFSETS, T.TILEBYTECOUNTS) if tile else (T.STRIPOFFSETS, T.STRIPBYTECOUNTS)
    if tile:
        tags[T.TILEWIDTH] = tags[T.TILELENGTH] = tile
    tags[offset], tags[length] = 0, len(data)
    tags.tagtype[offset] = tags.tagtype[length] = 4
    file = io.BytesIO()
    tags[offset] = tags.save(file) if tile else 0  # Pillow moves the offsets of strips alone
    file = io.BytesIO()
    tags.save(file)
    return file.getvalue() + data


def png(width: int, height: int) -> bytes:
    """The start of a PNG file of 16-bit RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def test_bombs_are_refused_before_they_are_unpacked() -> None:
    resource = pytest.importorskip("resource")

    def peak() -> int:
        return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024  # the most so far, in bytes

    zeros = zlib.compress(bytes(10**8), 1)
    assert np.array_equal(load(tiff(4, 4, zlib.compress(bytes(96)))).pixels, np.zeros((4, 4, 3)))
    assert np.array_equal(load(tiff(4, 4, zlib.compress(bytes(1536)), 16)).pixels, np.zeros((4, 4, 3)))
    before = peak()
    for data in (tiff(10**5, 10**5, zeros), png(10**5, 10**5), tiff(16, 16, zeros, 2**16)):
        with pytest.raises(LimitError, match="max_pixels"):
            load(data)
    with pytest.raises(LimitError):
        load(tiff(16, 16, zeros, 4096), max_pixels=10**6)
    load(tiff(16, 16, zeros))
    for data in (tiff(2000, 2000, zeros[:1000]), png(2000, 2000)):
        with pytest.raises(PictureError):
            load(data)
    assert peak() - before < 10**8


def test_shapes_that_do_not_fit_are_refused() -> None:
    with (DATA / "im-rgb-16.png").open("rb") as file:
        for shape in ((24, 36, 4), (24, 37, 3), (36, 24, 3)):
            with pytest.raises(ValueError, match="shape"):
                sixteen_bits.read_png(file, shape)


def test_profiles() -> None:
    p3 = (DATA / "p3.icc").read_bytes()
    rgb = np.array([[[0, 0, 0], [65535, 65535, 65535], [30000, 30000, 30000], [40000, 20000, 20000]]], np.uint16)
    black, white, grey, red = sixteen_bits.to_srgb(rgb, p3)[0].astype(int)
    assert black.max() < 100
    assert white.min() > 65400
    assert np.ptp(grey) < 100
    linear = (rgb[0, 3] / 65535) ** 2.2  # of P3 primaries; to those of sRGB by the matrix of the two (both are D65)
    r, g, b = np.array([[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]) @ linear
    wanted = 65535 * (1.055 * np.array([r, g, b]) ** (1 / 2.4) - 0.055)
    assert np.abs(red - wanted).max() < 150
