"""What is read, what is converted and by which rule, what is refused."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import threading
import tracemalloc
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms
from profiles import cmyk_profile, grey_inks
from sample_pictures import (
    ASTRONAUT,
    CAMERA,
    DATA,
    ROCKET,
    SRGB,
    XMP,
    cutout,
    exif_bytes,
    png,
    saved,
    small,
)

from lichen.container import SIGNATURE
from lichen.errors import LimitError, PictureError
from lichen.picture import (
    Picture,
    load,
    to_8_bits,
    to_16_bits,
    to_chunks,
)

# ---- sources ---------------------------------------------------------------------------------------------------------


def test_every_source_gives_the_same_picture() -> None:
    expected = np.asarray(Image.open(ASTRONAUT))
    raw = ASTRONAUT.read_bytes()
    with ASTRONAUT.open("rb") as file:
        for source in (ASTRONAUT, str(ASTRONAUT), raw, io.BytesIO(raw), file, Image.open(ASTRONAUT), expected):
            found = load(source)
            assert np.array_equal(found.pixels, expected)
            assert found.alpha is None
            assert (found.height, found.width, found.grey) == (512, 512, False)


def test_sources_that_only_read() -> None:
    class Pipe:
        def read(self) -> bytes:
            return CAMERA.read_bytes()

    assert load(Pipe()).grey  # type: ignore[arg-type]


def test_arrays() -> None:
    rgba = np.asarray(cutout())
    found = load(rgba)
    assert found.alpha is not None
    assert np.array_equal(np.dstack([found.pixels, found.alpha]), rgba)
    grey = load(rgba[::-1, ::2, 0])
    assert grey.grey
    assert grey.pixels.flags.c_contiguous
    assert np.array_equal(grey.pixels, rgba[::-1, ::2, 0])
    assert load(np.zeros((1, 1, 3), np.uint8)).pixels.shape == (1, 1, 3)
    deep = rgba.astype(np.uint16) * 255 + 1
    for source in (deep, deep.astype(">u2")):
        found = load(source)
        assert found.depth == 16
        assert found.alpha is not None
        assert np.array_equal(np.dstack([found.pixels, found.alpha]), deep)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 3), np.int16),
        np.zeros((4, 4, 3), np.uint32),
        np.zeros((4, 4), bool),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        Image.new("RGB", (0, 5)),
        "missing.png",
        DATA,
        "a\0b",
        b"",
        b"hello, I am no picture",
        42,
        None,
    ],
    ids=lambda s: f"{type(s).__name__}-{getattr(s, 'shape', '')}{getattr(s, 'dtype', '')}",
)
def test_what_is_no_picture(source: Any) -> None:
    with pytest.raises(PictureError) as caught:
        load(source)
    assert len(str(caught.value)) > 20


def test_messages_say_what_to_do() -> None:
    with pytest.raises(PictureError, match=r"missing\.png cannot be read \(No such file or directory\)"):
        load("missing.png")
    with pytest.raises(PictureError, match="decode it"):
        load(SIGNATURE + b"HEAD")
    with pytest.raises(PictureError, match="uint8"):
        load(np.zeros((4, 4, 3)))  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000"])
def test_truncated_and_corrupted_files(format: str) -> None:
    data = saved(small(ASTRONAUT), format)
    rng = random.Random(0)
    if format != "JPEG2000":  # OpenJPEG decodes what it has
        with pytest.raises(PictureError):
            load(data[: len(data) // 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on broken metadata
        for _ in range(300):
            broken = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                broken[rng.randrange(min(len(data), 300))] = rng.randrange(256)
            with contextlib.suppress(PictureError, LimitError):
                load(bytes(broken), max_pixels=10**6)


def test_arrays_that_do_not_fit() -> None:
    grey = np.zeros((4, 5), np.uint8)
    with pytest.raises(PictureError, match="does not fit"):
        Picture(grey, grey.T)
    with pytest.raises(PictureError, match="does not fit"):
        Picture(grey, grey.astype(np.uint16))
    with pytest.raises(PictureError, match="uint8"):
        Picture(grey.astype(float))  # type: ignore[arg-type]
    with pytest.raises(PictureError, match="shape"):
        Picture(np.zeros((4, 4, 4), np.uint8))


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_limit_on_pixels() -> None:
    for source in (CAMERA, CAMERA.read_bytes(), Image.open(CAMERA), np.asarray(Image.open(CAMERA))):
        with pytest.raises(LimitError, match="512x512"):
            load(source, max_pixels=512 * 512 - 1)
        load(source, max_pixels=512 * 512)


def test_limit_rules_in_place_of_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # would refuse 2001
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for format in ("PNG", "TIFF", "GIF", "WEBP"):
            data = saved(Image.new("L", (512, 512)), format)
            assert load(data, max_pixels=None).width == 512
            assert load(data).width == 512
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_declared_bombs_are_refused_before_they_are_unpacked() -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    idat = b"IDAT" + zlib.compress(bytes(10_000))
    data += struct.pack(">I", len(idat) - 4) + idat + struct.pack(">I", zlib.crc32(idat))
    tracemalloc.start()
    with pytest.raises(LimitError, match="max_pixels"):
        load(data)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_threads_leave_pillows_limit_as_it_was() -> None:
    before = Image.MAX_IMAGE_PIXELS
    data = CAMERA.read_bytes()
    failed: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(5):
                load(data, max_pixels=None)
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failed
    assert before == Image.MAX_IMAGE_PIXELS


# ---- kinds of pixels -------------------------------------------------------------------------------------------------


def test_grey_stays_grey() -> None:
    assert np.array_equal(load(CAMERA).pixels, np.asarray(Image.open(CAMERA)))
    jpeg = saved(Image.open(CAMERA), "JPEG")
    assert load(jpeg).grey
    assert load(jpeg).to_pil().mode == "L"


def test_grey_with_alpha() -> None:
    image = Image.merge("LA", [small(CAMERA), small(ASTRONAUT).convert("L")])
    for source in (image, saved(image), saved(image, "TIFF")):
        found = load(source)
        assert found.grey
        assert np.array_equal(found.pixels, np.asarray(image)[..., 0])
        assert np.array_equal(found.alpha, np.asarray(image)[..., 1])
        assert found.to_pil().mode == "LA"
        assert np.array_equal(np.asarray(found.to_pil()), np.asarray(image))


def test_one_bit() -> None:
    image = small(CAMERA).convert("1")
    for source in (image, saved(image), saved(image, "TIFF", compression="group4")):
        found = load(source)
        assert found.grey
        assert np.array_equal(found.pixels, np.asarray(image) * np.uint8(255))


def test_alpha_is_kept_even_where_opaque() -> None:
    found = load(saved(cutout()))
    assert np.array_equal(np.asarray(found.to_pil()), np.asarray(cutout()))
    opaque = load(small(ASTRONAUT).convert("RGBA"))
    assert opaque.alpha is not None
    assert opaque.alpha.min() == 255
    assert to_chunks(opaque)["ALPH"] == b"\xff"


def test_premultiplied_alpha_is_divided_out() -> None:
    image = cutout().convert("RGBa")
    found = load(image)
    assert np.array_equal(np.asarray(found.to_pil()), np.asarray(image.convert("RGBA")))


def test_palettes() -> None:
    image = small(ASTRONAUT).quantize(64)
    for source in (image, saved(image), saved(image, "GIF"), saved(image, "BMP")):
        found = load(source)
        assert found.alpha is None
        assert np.array_equal(found.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("transparency", [5, bytes(range(0, 250, 10))], ids=["index", "table"])
def test_palettes_with_transparency(transparency: int | bytes) -> None:
    image = small(ASTRONAUT).quantize(32)
    found = load(saved(image, "PNG", transparency=transparency))
    table = np.full(256, 255, np.uint8)
    if isinstance(transparency, int):
        table[transparency] = 0
    else:
        table[: len(transparency)] = list(transparency)
    assert np.array_equal(found.alpha, table[np.asarray(image)])
    assert np.array_equal(found.pixels, np.asarray(image.convert("RGB")))


def test_transparent_gif() -> None:
    index = np.asarray(small(ASTRONAUT).quantize(32))
    found = load(saved(small(ASTRONAUT).quantize(32), "GIF", transparency=3))
    assert np.array_equal(found.alpha, np.where(index == 3, 0, 255))


@pytest.mark.parametrize(
    ("depth", "row", "key", "levels", "alpha"),
    [
        (1, b"\x60", 1, [0, 255, 255], [255, 0, 0]),
        (2, b"\x1b", 1, [0, 85, 170, 255], [255, 0, 255, 255]),
        (4, b"\x01\x23", 2, [0, 17, 34, 51], [255, 255, 0, 255]),
        (8, b"\x00\x01\x02\x03", 3, [0, 1, 2, 3], [255, 255, 255, 0]),
        (16, b"\x00\x00\x00\x01\x01\x01\xff\xff", 1, [0, 1, 257, 65535], [65535, 0, 65535, 65535]),
    ],
)
def test_transparent_grey_of_every_depth(depth: int, row: bytes, key: int, levels: list[int], alpha: list[int]) -> None:
    found = load(png(len(levels), [row], depth, 0, struct.pack(">H", key)))
    assert found.pixels.tolist() == [levels]
    assert found.alpha is not None
    assert found.alpha.tolist() == [alpha]


def test_transparent_colour() -> None:
    found = load(png(2, [b"\1\2\3\1\2\4"], 8, 2, b"\0\1\0\2\0\3"))
    assert found.alpha is not None
    assert found.alpha.tolist() == [[0, 255]]
    for other, alpha in ((b"\x12\x34", 0), (b"\x12\x35", 65535)):
        found = load(png(2, [b"\x12\x34" * 3 + other * 3], 16, 2, b"\x12\x34" * 3))
        assert found.alpha is not None
        assert found.alpha.tolist() == [[0, alpha]]
    image = small(ASTRONAUT)
    image.info["transparency"] = image.getpixel((3, 3))
    found = load(image)
    assert found.alpha is not None
    assert found.alpha[3, 3] == 0


def test_a_nonsensical_transparent_colour() -> None:
    image = small(ASTRONAUT)
    image.info["transparency"] = 5
    with pytest.raises(PictureError, match="transparent colour"):
        load(image)


def test_cmyk_without_a_profile() -> None:
    image = small(ASTRONAUT).convert("CMYK")
    for source in (image, saved(image, "TIFF")):
        assert np.array_equal(load(source).pixels, np.asarray(image.convert("RGB")))
    jpeg = saved(image, "JPEG", quality=95)
    assert np.array_equal(load(jpeg).pixels, np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")))


def test_cmyk_with_a_profile_that_is_none_of_its_own_or_broken() -> None:
    image = small(ASTRONAUT).convert("CMYK")
    for profile in (SRGB, b"broken", b"x" * 200):
        found = load(saved(image, "TIFF", icc_profile=profile))
        assert found.icc is None
        assert np.array_equal(found.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile(format: str) -> None:
    image = small(ASTRONAUT).convert("CMYK")
    profile = cmyk_profile(grey_inks)
    file = saved(image, format, icc_profile=profile)
    found = load(file)
    assert found.icc is None
    with Image.open(io.BytesIO(file)) as opened:
        expected = ImageCms.profileToProfile(
            opened,
            io.BytesIO(profile),
            ImageCms.createProfile("sRGB"),
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            "RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        formula = np.asarray(opened.convert("RGB")).astype(int)
    assert np.array_equal(found.pixels, np.asarray(expected))
    assert np.abs(found.pixels - formula).mean() > 5  # it is not Pillow's formula
    assert np.ptp(found.pixels.astype(int), axis=2).max() <= 2  # this profile's inks are all grey


def test_lab() -> None:
    original = small(ASTRONAUT)
    lab = ImageCms.profileToProfile(original, SRGB_FILE(), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert lab is not None
    for source in (lab, saved(lab, "TIFF")):
        found = load(source)
        assert np.abs(found.pixels.astype(int) - np.asarray(original)).mean() < 2
        assert found.icc is None


def SRGB_FILE() -> io.BytesIO:
    return io.BytesIO(SRGB)


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "RGBX"])
def test_other_colour_modes(mode: str) -> None:
    image = small(ASTRONAUT).convert(mode)
    assert np.array_equal(load(image).pixels, np.asarray(image.convert("RGB")))


def test_16_bit_grey() -> None:
    levels = np.asarray(small(CAMERA)).astype(np.uint16) * 257
    levels[0, :6] = [0, 128, 129, 385, 386, 65535]
    image = Image.fromarray(levels)
    assert image.mode == "I;16"
    sources: list[Any] = [image, saved(image), saved(image, "TIFF"), Image.fromarray(levels.astype(np.int32))]
    sources += [saved(Image.fromarray(levels.astype(np.int32)), "PPM")]
    for source in sources:
        found = load(source)
        assert found.grey
        assert found.depth == 16
        assert np.array_equal(found.pixels, levels)
        assert found.to_pil().mode == "L"


def test_big_endian_16_bit_grey() -> None:
    levels = np.arange(0, 60_000, 1000, np.uint16).reshape(6, 10)
    image = Image.frombytes("I;16B", (10, 6), levels.astype(">u2").tobytes())
    assert np.array_equal(load(image).pixels, levels)


def test_depths_of_levels() -> None:
    every = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(to_8_bits(every), np.rint(every / 257).astype(np.uint8))
    assert to_8_bits(every).dtype == np.uint8
    eight = np.arange(256, dtype=np.uint8)
    assert to_16_bits(eight)[[0, 1, 255]].tolist() == [0, 257, 65535]
    assert np.array_equal(to_8_bits(to_16_bits(eight)), eight)
    picture = load(np.asarray(cutout()))
    assert picture.to_depth(16).depth == 16
    assert np.array_equal(np.asarray(picture.to_depth(16).to_pil()), np.asarray(cutout()))
    with pytest.raises(PictureError, match="8 or 16"):
        picture.to_depth(12)


def test_integers_beyond_16_bits_and_floats_are_refused() -> None:
    for value in (-1, 65536):
        with pytest.raises(PictureError, match="16 bits"):
            load(Image.new("I", (4, 4), value))
    with pytest.raises(PictureError, match="floating-point"):
        load(Image.new("F", (4, 4), 0.5))


def test_first_frame_of_animations() -> None:
    frames = [small(p).convert("RGB") for p in (ASTRONAUT, CAMERA, ROCKET)]
    for format, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
        found = load(data).pixels.astype(int)
        assert np.abs(found - np.asarray(frames[0])).mean() < 6
    opened = Image.open(io.BytesIO(saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])))
    opened.seek(2)
    assert np.array_equal(load(opened).pixels, np.asarray(frames[2]))


# ---- orientation -----------------------------------------------------------------------------------------------------

FROM_UPRIGHT = {  # what a camera that was held so stores, and says with this tag
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "PIL"])
def test_all_orientations(orientation: int, format: str) -> None:
    upright = np.asarray(cutout())
    stored = Image.fromarray(np.ascontiguousarray(FROM_UPRIGHT[orientation](upright)))
    exif = Image.Exif()
    exif.load(exif_bytes(orientation))
    if format == "PIL":
        stored.info["exif"] = exif.tobytes()
        found = load(stored)
    else:
        options = {"lossless": True, "exact": True} if format == "WEBP" else {}
        found = load(saved(stored, format, exif=exif, **options))
    assert np.array_equal(np.asarray(found.to_pil()), upright)
    assert found.exif is not None
    kept = found.to_pil().getexif()
    assert kept.get(ExifTags.Base.Orientation, 1) == 1
    assert kept[ExifTags.Base.Make] == "Lichen & Sons"
    assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (47.0, 22.0, 1.5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_of_jpeg_as_pillow_turns_them(orientation: int) -> None:
    from PIL import ImageOps

    data = saved(Image.open(ROCKET), "JPEG", quality=90, exif=exif_bytes(orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert expected is not None
    assert np.array_equal(load(data).pixels, np.asarray(expected))


def test_turned_twice_is_turned_once() -> None:
    first = load(saved(small(ASTRONAUT), "JPEG", exif=exif_bytes(6), xmp=XMP % 6))
    second = load(first.to_pil())
    assert np.array_equal(first.pixels, second.pixels)
    assert (first.exif, first.xmp) == (second.exif, second.xmp)


def test_orientation_of_xmp_alone() -> None:
    for xmp in (XMP % 8, b"<a><tiff:Orientation>8</tiff:Orientation></a>"):
        found = load(saved(small(ASTRONAUT), "JPEG", xmp=xmp))
        assert (found.width, found.height) == (40, 60)
        assert found.xmp is not None
        assert len(found.xmp) == len(xmp)
        assert found.xmp == xmp.replace(b"8", b"1").replace(b"1999/02/22", b"1999/02/22")


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_impossible_orientations_count_as_upright(orientation: int) -> None:
    found = load(saved(small(ASTRONAUT), "JPEG", exif=exif_bytes(orientation)))
    assert (found.width, found.height) == (60, 40)
    assert found.to_pil().getexif()[ExifTags.Base.Orientation] == 1
