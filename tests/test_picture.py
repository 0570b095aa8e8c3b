"""Pictures in and out: what is kept, what is converted and by which rule, what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import struct
import subprocess
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, features
from profiles import cmyk_profile, grey_inks

from lichen import picture as pictures
from lichen.container import SIGNATURE
from lichen.errors import DamagedError, LichenError, LimitError, PictureError
from lichen.picture import (
    MAX_METADATA,
    Picture,
    compress_metadata,
    decode_alpha,
    decompress_metadata,
    encode_alpha,
    from_chunks,
    load,
    to_8_bits,
    to_16_bits,
    to_chunks,
)

DATA = Path(skimage.__file__).parent / "data"
ASTRONAUT = DATA / "astronaut.png"  # RGB
CAMERA = DATA / "camera.png"  # grey
HORSE = DATA / "horse.png"  # a silhouette
ROCKET = DATA / "rocket.jpg"

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
)


def small(path: Path, size: tuple[int, int] = (60, 40)) -> Image.Image:
    with Image.open(path) as image:
        return image.resize(size, Image.Resampling.LANCZOS)


def cutout(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A photograph in the soft outline of a horse."""
    image = small(ASTRONAUT, size)
    image.putalpha(small(HORSE, size).convert("L"))
    return image


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif_bytes(orientation: int | None = None) -> bytes:
    """EXIF as a camera writes it: with a maker note and a place on the globe."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Lichen & Sons"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: (1, 250), ExifTags.Base.MakerNote: b"secret \x00\xff" * 20}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (47.0, 22.0, 1.5)}
    return exif.tobytes()


def png(width: int, rows: list[bytes], depth: int, colour: int, key: bytes) -> bytes:
    """A PNG file with a transparent colour, of any bit depth."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), chunk(b"tRNS", key), chunk(b"IDAT", body), chunk(b"IEND", b"")]
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


# ---- metadata --------------------------------------------------------------------------------------------------------


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


# ---- writing ---------------------------------------------------------------------------------------------------------


def whole(path: Path | None = None) -> Picture:
    picture = load(small(path) if path else cutout())
    picture.icc, picture.exif, picture.xmp = SRGB, exif_bytes(1)[6:], XMP % 1
    return picture


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


# ---- alpha -----------------------------------------------------------------------------------------------------------


def alphas() -> dict[str, np.ndarray[Any, Any]]:
    camera = np.asarray(Image.open(CAMERA))
    rng = np.random.default_rng(0)
    return {
        "matte": camera,
        "binary": np.where(camera > 128, 255, 0).astype(np.uint8),
        "soft": np.asarray(cutout((300, 200)))[..., 3],
        "noise": rng.integers(0, 256, (33, 65), np.uint8),
        "column": rng.integers(0, 256, (5000, 1), np.uint8),
        "row": rng.integers(0, 256, (1, 5000), np.uint8),
        "wider than WebP": np.resize(camera, (3, 20_000)),
        "taller than WebP": np.resize(camera, (20_000, 3)),
        "pixel": np.array([[7]], np.uint8),
        "opaque": np.full((300, 200), 255, np.uint8),
        "strided": camera[::-2, ::3],
        "16 bits": camera.astype(np.uint16) * 257 + rng.integers(0, 257, camera.shape, np.uint16),
        "8 of 16 bits": camera.astype(np.uint16) * 257,
        "opaque in 16 bits": np.full((300, 200), 65535, np.uint16),
        "all equal in 16 bits": np.full((300, 200), 1000, np.uint16),
        "row of 16 bits": rng.integers(0, 65536, (1, 5000), np.uint16),
    }


@pytest.mark.parametrize("name", alphas())
def test_alpha_round_trip(name: str) -> None:
    alpha = alphas()[name]
    found = decode_alpha(encode_alpha(alpha), *alpha.shape, depth=8 * alpha.itemsize)
    assert found.dtype == alpha.dtype
    assert np.array_equal(found, alpha)
    for depth, other in ((8, to_8_bits(alpha)), (16, to_16_bits(alpha))):
        assert np.array_equal(decode_alpha(encode_alpha(alpha), *alpha.shape, depth=depth), other)


def test_alpha_in_several_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = alphas()["matte"]
    monkeypatch.setattr(pictures, "_BAND", 512 * 100)
    data = encode_alpha(alpha)
    assert struct.unpack_from(">I", data) == (100,)
    deep = encode_alpha(alphas()["16 bits"])
    assert struct.unpack_from(">I", deep) == (100,)
    monkeypatch.undo()
    assert np.array_equal(decode_alpha(data, 512, 512), alpha)
    assert np.array_equal(decode_alpha(deep, 512, 512, 16), alphas()["16 bits"])


def test_bands_of_both_depths_may_stand_together() -> None:
    deep, eight = np.array([[1000, 2000]], np.uint16), np.array([[3, 4]], np.uint8)
    files = [saved(Image.fromarray(rows)) for rows in (deep, eight)]
    data = struct.pack(">I", 1) + b"".join(struct.pack(">I", len(f)) + f for f in files)
    assert decode_alpha(data, 2, 2, 16).tolist() == [[1000, 2000], [771, 1028]]
    assert decode_alpha(data, 2, 2).tolist() == [[4, 8], [3, 4]]


def test_a_stored_band_of_16_bits() -> None:
    """As it stands in a file since version 1: what is read must not change."""
    data = bytes.fromhex(
        "000000010000004889504e470d0a1a0a0000000d49484452000000030000000110000000006e1b972b"
        "0000000f4944415478da636060607ef1ff3f0005c802ea2d1d38420000000049454e44ae426082"
    )
    assert decode_alpha(data, 1, 3, 16).tolist() == [[0, 1000, 65535]]
    assert decode_alpha(data, 1, 3).tolist() == [[0, 4, 255]]


def test_alpha_without_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = alphas()["matte"]
    monkeypatch.setattr(pictures.features, "check", lambda _: False)
    data = encode_alpha(alpha)
    assert data[8:12] == b"\x89PNG"
    assert np.array_equal(decode_alpha(data, 512, 512), alpha)
    monkeypatch.undo()
    assert np.array_equal(decode_alpha(data, 512, 512), alpha)
    webp = encode_alpha(alpha)
    monkeypatch.setattr(pictures.features, "check", lambda _: False)
    with pytest.raises(PictureError, match="Pillow"):
        decode_alpha(webp, 512, 512)


def test_alpha_is_small() -> None:
    for name in ("matte", "binary", "noise"):
        alpha = alphas()[name]
        assert len(encode_alpha(alpha)) < len(saved(Image.fromarray(alpha), "PNG", optimize=True))
    assert encode_alpha(alphas()["opaque"]) == encode_alpha(alphas()["opaque in 16 bits"]) == b"\xff"
    assert encode_alpha(alphas()["8 of 16 bits"]) == encode_alpha(alphas()["matte"])


def band(data: bytes, rows: int = 40) -> bytes:
    return struct.pack(">II", rows, len(data)) + data


def test_alpha_that_no_writer_writes() -> None:
    good = encode_alpha(np.asarray(small(CAMERA)))
    assert decode_alpha(good, 40, 60).shape == (40, 60)
    webp = {"lossless": True}
    bad = [
        b"",
        b"\0\0",
        good[:-1],
        good + b"\0",
        struct.pack(">I", 0) + good[4:],
        struct.pack(">I", 1) + good[4:],
        band(saved(small(CAMERA), "PNG")[:-300]),
        band(saved(small(CAMERA, (61, 40)), "PNG")),
        band(saved(small(CAMERA).convert("RGB"), "PNG")),
        band(saved(small(CAMERA), "BMP")),
        band(saved(small(CAMERA).convert("RGB"), "WEBP")),
        band(saved(small(CAMERA, (61, 40)).convert("RGB"), "WEBP", **webp)),
        band(saved(cutout(), "WEBP", **webp)),
    ]
    for data in bad:
        with pytest.raises(DamagedError):
            decode_alpha(data, 40, 60)
    for size in ((40, 61), (41, 60), (80, 60), (2**20, 60)):
        with pytest.raises(DamagedError):
            decode_alpha(good, *size)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_alpha_bombs(format: str) -> None:
    options = {"lossless": True, "method": 0} if format == "WEBP" else {}
    bomb = saved(Image.new("RGB" if format == "WEBP" else "L", (4000, 4000)), format, **options)
    tracemalloc.start()
    with pytest.raises(DamagedError):
        decode_alpha(band(bomb), 40, 60)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def test_random_alpha_never_fails_otherwise() -> None:
    rng = random.Random(3)
    mask = np.asarray(small(CAMERA))
    deep = encode_alpha(mask.astype(np.uint16) * 250)
    originals = [encode_alpha(mask), band(saved(small(CAMERA), "PNG")), deep]
    for trial in range(3000):
        data = bytearray(originals[trial % 3])
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(DamagedError):
            assert decode_alpha(bytes(data), 40, 60).shape == (40, 60)


# ---- chunks ----------------------------------------------------------------------------------------------------------


def test_metadata_compression() -> None:
    for data in (b"", b"x", XMP * 100, bytes(10**6)):
        assert decompress_metadata(compress_metadata(data)) == data
    good = compress_metadata(XMP)
    for bad in (b"", good[:-1], good + b"x", b"garbage", good[:20] + b"\xff\xff" + good[22:]):
        with pytest.raises(DamagedError):
            decompress_metadata(bad)


def test_metadata_bombs() -> None:
    bomb = zlib.compress(bytes(MAX_METADATA + 1), 9)
    assert len(bomb) < 100_000
    with pytest.raises(DamagedError, match="more than"):
        decompress_metadata(bomb)
    with pytest.raises(DamagedError, match="more than 10 bytes"):
        decompress_metadata(zlib.compress(bytes(11)), limit=10)
    with pytest.raises(LimitError):
        compress_metadata(bytes(MAX_METADATA + 1))


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
