"""Through a .lichen file and back: pictures that ImageMagick, ExifTool and Pillow wrote, in tests/data/pictures.

Its README has the commands. What the files of ImageMagick show is held against raw samples, not against another reader.
"""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

import lichen
from lichen import codec
from lichen.cli import main
from lichen.errors import LichenWarning, LimitError, PictureError
from lichen.models.base import Model
from lichen.picture import Picture, load, to_8_bits, to_16_bits

DATA = Path(__file__).parent / "data" / "pictures"
COLOUR = np.fromfile(DATA / "master.rgba", "<u2").reshape(24, 36, 4)
GREY = np.fromfile(DATA / "master.gray", "<u2").reshape(24, 36)
GREY_ALPHA = 65535 - GREY  # as `-negate` has it
PICTURES = sorted(p.name for p in DATA.iterdir() if p.suffix not in (".md", ".icc", ".rgba", ".gray"))


def icc(name: str) -> bytes:
    return (DATA / f"{name}.icc").read_bytes()


def psnr(a: Picture, b: Picture) -> float:
    """In dB, of 16 bits."""
    error = to_16_bits(a.pixels).astype(float) - to_16_bits(b.pixels)
    return float(10 * np.log10(65535**2 / (error**2).mean()))


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "grey", "alpha"),
    [
        ("im-rgba-16.png", False, True),
        ("im-rgba-16-interlaced.png", False, True),
        ("im-rgba-16-p3.png", False, True),
        ("im-rgba-16.tif", False, True),
        ("im-rgba-16-msb.tif", False, True),
        ("im-rgb-16.png", False, False),
        ("im-rgb-16.tif", False, False),
        ("im-rgb-16-msb.tif", False, False),
        ("im-rgb-16-planar.tif", False, False),
        ("im-rgb-16-tiled.tif", False, False),
        ("im-rgb-16-adobe.tif", False, False),
        ("im-gray-16.png", True, False),
        ("im-gray-16-icc.png", True, False),
        ("im-gray-16.tif", True, False),
        ("im-gray-16-msb.tif", True, False),
        ("im-gray-alpha-16.png", True, True),
        ("im-gray-alpha-16.tif", True, True),
        ("et-metadata-16.png", False, True),
        ("et-metadata-16.tif", False, True),
    ],
)
def test_every_bit_of_16_is_read(name: str, grey: bool, alpha: bool) -> None:
    found = load(DATA / name)
    assert found.depth == 16
    assert np.array_equal(found.pixels, GREY if grey else COLOUR[..., :3])
    if alpha:
        assert np.array_equal(found.alpha, GREY_ALPHA if grey else COLOUR[..., 3])
    else:
        assert found.alpha is None
    for source in ((DATA / name).read_bytes(), io.BytesIO((DATA / name).read_bytes())):
        assert np.array_equal(load(source).pixels, found.pixels)


def test_white_at_zero() -> None:
    assert np.array_equal(load(DATA / "im-gray-16-white.tif").pixels, 65535 - GREY)


def test_premultiplied_alpha_of_16_bits_is_divided_out() -> None:
    found = load(DATA / "im-rgba-16-associated.tif")
    assert np.array_equal(found.alpha, COLOUR[..., 3])
    off = np.abs(found.pixels.astype(int) - COLOUR[..., :3])
    assert (off <= 1 + 65535 // np.maximum(COLOUR[..., 3:].astype(int), 1)).all()  # half a level before the division


@pytest.mark.parametrize(
    ("name", "grey", "alpha"),
    [
        ("im-rgba.png", False, True),
        ("im-rgba.tif", False, True),
        ("et-metadata.png", False, True),
        ("im-rgb-interlaced.png", False, False),
        ("im-rgb-msb.tif", False, False),
        ("et-metadata.tif", False, False),
        ("im-gray.png", True, False),
        ("im-gray-alpha.png", True, True),
    ],
)
def test_8_bits_are_read(name: str, grey: bool, alpha: bool) -> None:
    found = load(DATA / name)
    assert found.depth == 8
    samples = np.dstack([v for v in (found.pixels, found.alpha) if v is not None])
    wanted = np.dstack([GREY, GREY_ALPHA] if grey else [COLOUR])[..., : samples.shape[2]]
    assert samples.shape[2] == (1 if grey else 3) + alpha
    assert np.abs(samples - wanted / 257).max() <= 1  # ImageMagick cuts where it could round


@pytest.mark.parametrize("kind", ["tif", "jpg"])
def test_cmyk_is_what_imagemagick_makes_of_it(kind: str) -> None:
    found = load(DATA / f"im-cmyk.{kind}")
    wanted = np.asarray(Image.open(DATA / f"im-cmyk-{kind}-as-srgb.png").convert("RGB"))
    assert np.abs(found.pixels.astype(int) - wanted).max() <= 2
    assert found.icc is None


def test_palettes_keep_their_transparency() -> None:
    found = load(DATA / "im-palette-alpha.png")
    assert found.alpha is not None
    threshold = COLOUR[..., 3] > 0.75 * 65535
    assert np.array_equal(found.alpha, np.where(threshold, 255, 0))
    assert np.abs(found.pixels[threshold] - COLOUR[threshold][:, :3] / 257).mean() < 10  # 255 colours
    index = np.asarray(Image.open(DATA / "pil-palette.png"))
    assert np.array_equal(load(DATA / "pil-palette.png").alpha, 8 * index)
    gif = Image.open(DATA / "pil-palette.gif")
    assert np.array_equal(
        load(DATA / "pil-palette.gif").alpha, np.where(np.asarray(gif) == gif.info["transparency"], 0, 255)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_shows_the_same_picture(tiny_light: Model, orientation: int) -> None:
    found = load(DATA / f"et-orientation-{orientation}.jpg")
    assert (found.width, found.height) == (36, 24)
    assert np.abs(found.pixels - COLOUR[..., :3] / 257).mean() < 3
    back = lichen.decode(lichen.encode(DATA / f"et-orientation-{orientation}.jpg", model=tiny_light), model=tiny_light)
    assert back.size == (36, 24)
    assert back.getexif()[ExifTags.Base.Orientation] == 1
    assert back.getexif()[ExifTags.Base.Artist] == "Ansel"


# ---- through a file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURES)
def test_all_but_the_pixels_returns_bit_for_bit(tiny_light: Model, name: str) -> None:
    source = load(DATA / name)
    data = lichen.encode(DATA / name, model=tiny_light)
    back = lichen.decode_picture(data, model=tiny_light, depth=source.depth)
    assert (back.grey, back.depth, back.pixels.shape) == (source.grey, source.depth, source.pixels.shape)
    assert (back.alpha is None) == (source.alpha is None)
    assert source.alpha is None or np.array_equal(back.alpha, source.alpha)
    assert (back.icc, back.exif, back.xmp) == (source.icc, source.exif, source.xmp)
    image = lichen.decode(data, model=tiny_light)
    assert image.mode == ("L" if source.grey else "RGB") + "A" * (source.alpha is not None)
    if source.alpha is not None:
        assert np.array_equal(np.asarray(image)[..., -1], to_8_bits(source.alpha))


@pytest.mark.parametrize(
    "name",
    [
        "im-rgb-16.png",
        "im-rgba-16-msb.tif",
        "im-gray-16.tif",
        "im-gray-alpha.png",
        "im-cmyk.jpg",
        "pil-p3.png",
        "pil-progressive.jpg",
        "et-orientation-6.jpg",
    ],
)
def test_pixels_return_as_close_as_the_weights_have_them(name: str) -> None:
    source = load(DATA / name)
    data = lichen.encode(DATA / name, 95)
    eight, deep = (lichen.decode_picture(data, depth=depth) for depth in (8, 16))
    assert (eight.depth, deep.depth) == (8, 16)
    assert psnr(eight, source) > 32
    assert psnr(deep, source) > 32
    assert np.abs(to_8_bits(deep.pixels).astype(int) - eight.pixels).max() <= 1
    assert np.unique(deep.pixels % 257).size > 100  # there is more in it than 8 bits


def test_a_crop_of_16_bits(tiny_light: Model) -> None:
    data = lichen.encode(DATA / "im-rgba-16.png", model=tiny_light)
    whole = lichen.decode_picture(data, model=tiny_light, depth=16)
    part = lichen.decode_picture(data, model=tiny_light, depth=16, box=(3, 4, 30, 20))
    assert np.array_equal(part.pixels, whole.pixels[4:20, 3:30])
    assert np.array_equal(part.alpha, COLOUR[4:20, 3:30, 3])


def test_a_target_in_decibels_is_over_8_bits_of_16_too() -> None:
    decoded = lichen.decode(lichen.encode(DATA / "im-rgb-16.png", target_psnr=34))
    assert abs(psnr(load(decoded), load(DATA / "im-rgb-16.png").to_depth(8)) - 34) < 0.1


@pytest.mark.parametrize("name", [n for n in PICTURES if "metadata" in n])
def test_metadata_that_exiftool_wrote(tiny_light: Model, name: str) -> None:
    raw = (DATA / name).read_bytes()
    back = lichen.decode_picture(lichen.encode(raw, model=tiny_light), model=tiny_light)
    assert back.icc == icc("p3")
    exif = back.to_pil().getexif()
    assert exif[ExifTags.Base.Artist] == "Ansel"
    assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == 1 / 250
    place = exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert place[ExifTags.GPS.GPSLatitude] == (47, 30, 0)
    assert place[ExifTags.GPS.GPSLongitude] == (8, 15, 0)
    assert back.xmp is not None
    assert b"Half Dome" in back.xmp
    assert back.xmp in raw
    if not name.endswith("tif"):  # whose directory is written anew
        assert back.exif is not None
        assert back.exif in raw


# ---- out again -------------------------------------------------------------------------------------------------------

DEEP = ["et-metadata-16.png", "et-metadata-16.tif", "im-rgb-16.tif", "im-gray-16-icc.png", "im-gray-alpha-16.tif"]


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("name", DEEP)
def test_16_bits_are_written_with_everything(tmp_path: Path, name: str, suffix: str) -> None:
    source = load(DATA / name)
    target = tmp_path / f"a.{suffix}"
    assert source.save(target) == []
    again = load(target)
    assert again.depth == 16
    assert np.array_equal(again.pixels, source.pixels)
    assert source.alpha is None or np.array_equal(again.alpha, source.alpha)
    assert (again.icc, again.xmp) == (source.icc, source.xmp)
    if suffix == "png":
        assert again.exif == source.exif
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        assert dict(again.to_pil().getexif().get_ifd(tag)) == dict(source.to_pil().getexif().get_ifd(tag))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow has nothing to say against it
        if name != "im-gray-alpha-16.tif" or suffix != "tif":  # which it cannot read
            Image.open(target).load()


def test_formats_of_8_bits_say_so() -> None:
    source = load(DATA / "et-metadata-16.png")
    buffer = io.BytesIO()
    assert source.save(buffer, "WEBP") == ["16 bits a channel"]
    assert np.array_equal(load(buffer.getvalue()).pixels, to_8_bits(source.pixels))
    assert load(DATA / "im-rgb-16.tif").save(io.BytesIO(), "BMP") == ["16 bits a channel", "EXIF"]
    with pytest.raises(PictureError, match="no options"):
        source.save(buffer, "TIFF", compression="tiff_lzw")


def test_metadata_that_16_bit_files_cannot_hold_is_named() -> None:
    source = load(DATA / "im-rgb-16.png")
    source.xmp, source.exif = b"\xff\xfe<\0", b"garbage"
    buffer = io.BytesIO()
    assert source.save(buffer, "PNG") == ["XMP"]
    assert load(buffer.getvalue()).xmp is None
    assert source.save(buffer, "TIFF") == ["EXIF"]


# ---- strip -----------------------------------------------------------------------------------------------------------


def srgb_piece() -> npt.NDArray[np.uint8]:
    """What the files of Pillow show, in sRGB."""
    coffee = Image.open(DATA.parents[2] / "examples" / "coffee.png").convert("RGB")
    return np.asarray(coffee.resize((300, 200), Image.Resampling.LANCZOS).crop((60, 80, 96, 104)))


@pytest.mark.parametrize("name", [n for n in PICTURES if n.startswith("et-") or "16" in n or "p3" in n])
def test_strip_leaves_only_pixels_and_alpha(tiny_light: Model, name: str) -> None:
    source = load(DATA / name)
    data = lichen.encode(DATA / name, model=tiny_light, strip=True)
    assert set(codec.read(data).chunks) <= {"ALPH"}
    back = lichen.decode_picture(data, model=tiny_light, depth=source.depth)
    assert (back.icc, back.exif, back.xmp) == (None, None, None)
    assert back.pixels.shape == source.pixels.shape
    assert source.alpha is None or np.array_equal(back.alpha, source.alpha)


@pytest.mark.parametrize("name", ["pil-p3.png", "pil-adobe.png"])
def test_stripped_colours_look_the_same(name: str) -> None:
    source = load(DATA / name)
    assert np.abs(source.pixels.astype(int) - srgb_piece()).mean() > 5
    assert np.abs(source.stripped().pixels.astype(int) - srgb_piece()).mean() < 1


@pytest.mark.parametrize("name", ["im-rgba-16-p3.png", "im-rgb-16-adobe.tif", "im-gray-16-icc.png"])
def test_stripped_colours_keep_16_bits(name: str) -> None:
    source = load(DATA / name)
    found, eight = source.stripped(), source.to_depth(8).stripped()
    assert (found.depth, found.pixels.shape) == (16, source.pixels.shape)
    assert np.abs(source.pixels / 257 - eight.pixels).mean() > 2
    assert np.abs(found.pixels / 257 - eight.pixels).max() < 3  # the conversion of 8 bits is off by that in the darks
    assert np.abs(found.pixels / 257 - eight.pixels).mean() < 0.5


def test_srgb_stays_as_it_is() -> None:
    source = load(DATA / "im-cmyk-tif-as-srgb.png")
    assert source.icc == icc("srgb")
    assert np.abs(source.stripped().pixels.astype(int) - source.pixels).max() <= 1


def test_broken_profiles_are_stripped_too() -> None:
    for depth in (8, 16):
        source = load(DATA / "im-rgb-16.png").to_depth(depth)
        source.icc = icc("p3")[:200]
        assert np.array_equal(source.stripped().pixels, source.pixels)
        assert source.stripped().icc is None


# ---- without imagecodecs ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_imagecodecs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)


@pytest.mark.usefixtures("no_imagecodecs")
@pytest.mark.parametrize("name", ["im-rgba-16.png", "im-rgb-16-msb.tif", "im-gray-alpha-16.png", "im-rgba-16-p3.png"])
def test_without_imagecodecs_8_bits_are_taken_and_that_is_said(name: str) -> None:
    with pytest.warns(LichenWarning, match=rf"{name} has 16 bits a channel .*pip install 'lichen\[depth\]'"):
        found = load(DATA / name)
    assert found.depth == 8
    wanted = GREY if "gray" in name else COLOUR[..., :3]
    assert found.pixels.shape == wanted.shape
    assert np.array_equal(found.pixels, wanted >> 8)


@pytest.mark.usefixtures("no_imagecodecs")
def test_without_imagecodecs_grey_has_16_bits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("im-gray-16.png", "im-gray-16.tif", "im-gray-16-msb.tif"):
            assert np.array_equal(load(DATA / name).pixels, GREY)


@pytest.mark.usefixtures("no_imagecodecs")
def test_without_imagecodecs_the_rest_is_refused_with_a_hint() -> None:
    with pytest.raises(PictureError, match="pip install"):
        load(DATA / "im-gray-alpha-16.tif")
    source = load(COLOUR)
    with pytest.raises(PictureError, match="pip install"):
        source.save(io.BytesIO(), "PNG")
    source.icc = icc("p3")
    with pytest.warns(LichenWarning, match="pip install"):
        found = source.stripped()
    assert found.depth == 16
    assert np.array_equal(found.pixels, to_16_bits(source.to_depth(8).stripped().pixels))


def test_imagecodecs_is_not_imported_for_8_bits() -> None:
    code = """if True:
        import sys
        from lichen.picture import load
        for name in ("im-rgba.png", "im-rgb-msb.tif", "im-cmyk.tif", "im-gray-16.png"):
            load(f"{sys.argv[1]}/{name}")
            assert "imagecodecs" not in sys.modules, name
        load(f"{sys.argv[1]}/im-rgb-16.png")
        assert "imagecodecs" in sys.modules
    """
    subprocess.run([sys.executable, "-c", code, str(DATA)], check=True)


# ---- the command line ------------------------------------------------------------------------------------------------


def test_depth_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded = tmp_path / "a.lichen"
    assert main(["encode", str(DATA / "et-metadata-16.png"), "-q", "90", "-o", str(coded)]) == 0
    for suffix in ("png", "tif"):
        target = tmp_path / f"a.{suffix}"
        assert main(["decode", str(coded), "--depth", "16", "-o", str(target)]) == 0
        found = load(target)
        assert found.depth == 16
        assert np.array_equal(found.pixels, lichen.decode_picture(coded, depth=16).pixels)
        assert np.array_equal(found.alpha, COLOUR[..., 3])
        assert found.icc == icc("p3")
    assert main(["decode", str(coded), "-o", str(tmp_path / "b.png")]) == 0
    assert load(tmp_path / "b.png").depth == 8
    assert capsys.readouterr().err == ""
    assert main(["decode", str(coded), "--depth", "16", "-o", str(tmp_path / "a.webp")]) == 0
    assert "16 bits a channel" in capsys.readouterr().err


def test_strip_on_the_command_line(tmp_path: Path) -> None:
    for name, chunks in (("et-metadata-16.tif", {"ALPH"}), ("et-orientation-5.jpg", set())):
        target = tmp_path / f"{name}.lichen"
        assert main(["encode", "--strip", str(DATA / name), "-o", str(target)]) == 0
        assert set(codec.read(target).chunks) == chunks


@pytest.mark.usefixtures("no_imagecodecs")
def test_the_command_line_says_what_was_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):  # each time
        assert main(["encode", str(DATA / "im-rgb-16.png"), "-f", "-o", str(tmp_path / "a.lichen")]) == 0
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("lichen: ")
        assert line.endswith("pip install 'lichen[depth]' to take all")


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["im-rgba-16.png", "im-rgb-16-msb.tif", "im-gray-alpha-16.tif", "im-rgb-16-planar.tif"]
)
def test_too_many_pixels_of_16_bits(name: str) -> None:
    load(DATA / name, max_pixels=36 * 24)
    with pytest.raises(LimitError, match="36x24"):
        load(DATA / name, max_pixels=36 * 24 - 1)


@pytest.mark.parametrize("name", ["im-rgba-16.png", "im-rgb-16-msb.tif", "im-gray-alpha-16.tif", "im-rgb-16-tiled.tif"])
def test_damage_in_files_of_16_bits(name: str) -> None:
    raw = (DATA / name).read_bytes()
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's on broken metadata
        with pytest.raises(PictureError):
            load(raw[: len(raw) // 2])
        for _ in range(300):
            broken = bytearray(raw)
            for _ in range(rng.integers(1, 5)):
                at = rng.integers(100) if rng.random() < 0.5 else -rng.integers(1, 600)
                broken[at] = rng.integers(256)
            try:
                load(bytes(broken), max_pixels=10**6)
            except (PictureError, LimitError):
                continue


@pytest.mark.parametrize("depth", [0, 1, 12, 32, "16"])
def test_impossible_depths(tiny_light: Model, depth: Any) -> None:
    data = lichen.encode(COLOUR, model=tiny_light)
    with pytest.raises(PictureError, match="8 or 16"):
        lichen.decode_picture(data, model=tiny_light, depth=depth)
