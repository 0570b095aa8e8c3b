"""The plugin: what Pillow's users do with files of any format, with .lichen files."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

import lichen
import lichen.pillow
from lichen import codec
from lichen.container import parts
from lichen.errors import DamagedError, LichenError, PictureError
from lichen.models.base import Model
from lichen.models.weights import load
from lichen.pillow import LichenImageError, LichenImageFile

Photo = npt.NDArray[np.uint8]

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def profile() -> bytes:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif_of(text: str, orientation: int | None = None) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = text
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.fixture(scope="module")
def image(photo: Photo) -> Image.Image:
    """80x64, RGBA, with all metadata."""
    image = Image.fromarray(np.dstack([photo[:64, :80], photo[100:164, 100:180, 0]]))
    image.info |= {"icc_profile": profile(), "exif": exif_of("an astronaut").tobytes(), "xmp": XMP}
    return image


@pytest.fixture(scope="module")
def path(image: Image.Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pillow") / "photo.lichen"
    image.save(path, quality=60)
    return path


def saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "LICHEN", **options)
    return buffer.getvalue()


def reopened(image: Image.Image, **options: Any) -> LichenImageFile:
    opened = Image.open(io.BytesIO(saved(image, **options)))
    assert isinstance(opened, LichenImageFile)
    return opened


# ---- opening ---------------------------------------------------------------------------------------------------------


def test_everything_but_pixels_is_known_before_they_are(path: Path, image: Image.Image) -> None:
    with Image.open(path) as opened:
        assert isinstance(opened, LichenImageFile)
        assert (opened.format, opened.size, opened.mode) == ("LICHEN", (80, 64), "RGBA")
        assert opened.get_format_mimetype() == "image/x-lichen"
        assert opened.info == image.info | {"model": "light", "quality": 60.0}
        assert opened.getexif()[ExifTags.Base.ImageDescription] == "an astronaut"
        assert opened.tile  # nothing is decoded yet
        assert np.array_equal(np.asarray(opened), np.asarray(lichen.decode(path)))
        assert not opened.tile
        assert np.array_equal(np.asarray(opened)[..., 3], np.asarray(image)[..., 3])
        assert opened.info == image.info | {"model": "light", "quality": 60.0}


def test_opening_reads_no_tile(photo: Photo) -> None:
    read = 0

    class Counting(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            nonlocal read
            data = super().read(n)
            read += len(data)
            return data

    data = saved(Image.fromarray(photo[:256, :256]), quality=95, xmp=XMP)
    assert len(data) > 9_000
    with Image.open(Counting(data)) as opened:
        assert opened.info["xmp"] == XMP
        assert read < 1500
        opened.load()
        assert read > len(data)


def test_torch_waits_for_the_pixels(path: Path) -> None:
    code = (
        "import sys, lichen.pillow; from PIL import Image; image = Image.open(sys.argv[1])\n"
        "assert image.info['model'] == 'light'; image.getexif(); image.verify(); assert 'torch' not in sys.modules\n"
        "Image.open(sys.argv[1]).load(); assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_models_without_a_quality_and_weights_that_do_not_ship(photo: Photo) -> None:
    golden = Path(__file__).parent / "golden"
    model = load(weights=golden / "minnen2018-scale.safetensors")
    opened = reopened(Image.fromarray(photo[:30, :40]), model=model)
    assert opened.info == {"model": "minnen2018-scale"}
    with pytest.raises(LichenError, match="--weights"):
        opened.load()
    opened.model = model
    opened.load()  # what has failed can be tried again
    assert opened.size == (40, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I;16"])
def test_modes_are_those_of_encode(photo: Photo, mode: str) -> None:
    source = Image.fromarray(photo[:32, :48])
    if mode == "RGBa":
        source = source.convert("RGBA")
    if mode == "LAB":
        from PIL import ImageCms

        converted = ImageCms.profileToProfile(
            source, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
        assert converted is not None
        source = converted
    elif mode == "I;16":
        source = Image.fromarray(photo[:32, :48, 0].astype(np.uint16) * 257)
    else:
        source = source.convert(mode)
    assert source.mode == mode
    expected = lichen.decode(lichen.encode(source))
    opened = reopened(source)
    assert opened.mode == expected.mode
    assert np.array_equal(np.asarray(opened), np.asarray(expected))


def test_what_pillow_does_with_pictures(path: Path) -> None:
    with Image.open(path) as opened:
        opened.thumbnail((20, 20))
        assert opened.size == (20, 16)
    with Image.open(path) as opened:
        assert ImageOps.exif_transpose(opened).convert("L").crop((0, 0, 8, 8)).size == (8, 8)
    with Image.open(path) as opened:
        opened.putpixel((0, 0), (1, 2, 3, 4))
        assert opened.getpixel((0, 0)) == (1, 2, 3, 4)
        copy = opened.copy()
    assert copy.getpixel((0, 0)) == (1, 2, 3, 4)
    with Image.open(path, formats=["LICHEN"]) as opened:
        assert opened.tell() == 0
        with pytest.raises(EOFError):
            opened.seek(1)
    assert Image.registered_extensions()[".lichen"] == "LICHEN"


def test_a_grey_picture_can_be_drawn_on(photo: Photo) -> None:
    opened = reopened(Image.fromarray(photo[:32, :48, 0]))
    opened.putpixel((3, 3), 7)
    assert opened.getpixel((3, 3)) == 7
    assert opened.mode == "L"


def test_incremental_parsing(path: Path) -> None:
    data = path.read_bytes()
    parser = ImageFile.Parser()
    for i in range(0, len(data), 100):
        parser.feed(data[i : i + 100])
    picture = parser.close()
    assert picture.size == (80, 64)
    assert np.array_equal(np.asarray(picture), np.asarray(lichen.decode(data)))


def test_open_files_stay_open(path: Path) -> None:
    with path.open("rb") as file:
        Image.open(file).load()
        assert not file.closed
        assert Image.open(file).size == (80, 64)


# ---- saving ----------------------------------------------------------------------------------------------------------


def test_saving_takes_the_options_of_encode(image: Image.Image, tiny_light: Model) -> None:
    assert saved(image) == lichen.encode(image)
    assert saved(image, quality=31.5) == lichen.encode(image, 31.5)
    assert saved(image, quality=31, model=tiny_light, tile=1) == lichen.encode(image, 31, model=tiny_light, tile=1)
    assert saved(image, target_bytes=4000) == lichen.encode(image, target_bytes=4000)
    assert saved(image, quality=20, optimize=True) == lichen.encode(image, 20)  # Pillow ignores what a format has not


def test_saving_to_paths_and_files(image: Image.Image, tmp_path: Path) -> None:
    image.save(tmp_path / "a.LICHEN")
    image.save(str(tmp_path / "b"), "lichen")
    with (tmp_path / "c.lichen").open("wb") as file:
        image.save(file)
    with tempfile.SpooledTemporaryFile() as spooled:
        image.save(spooled, "LICHEN")
        spooled.seek(0)
        data = spooled.read()
    expected = lichen.encode(image)
    assert [(tmp_path / name).read_bytes() for name in ("a.LICHEN", "b", "c.lichen")] == [expected] * 3
    assert data == expected


def test_a_file_can_be_saved_over_itself(image: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "a.lichen"
    image.save(path, quality=90)
    with Image.open(path) as opened:
        opened.save(path, quality=30)
    with Image.open(path) as opened:
        assert opened.info == image.info | {"model": "light", "quality": 30.0}
        opened.load()


def test_metadata_is_the_pictures_own_unless_given(image: Image.Image) -> None:
    assert reopened(image).info.keys() == {"icc_profile", "exif", "xmp", "model", "quality"}
    given = reopened(image, exif=exif_of("another"), xmp="<other/>")
    assert given.getexif()[ExifTags.Base.ImageDescription] == "another"
    assert given.info["xmp"] == b"<other/>"
    assert given.info["icc_profile"] == image.info["icc_profile"]
    assert reopened(image, exif=exif_of("bytes").tobytes()).getexif()[ExifTags.Base.ImageDescription] == "bytes"
    bare = reopened(image, icc_profile=None, exif=b"", xmp=None)
    assert bare.info == {"model": "light", "quality": 75.0}
    assert reopened(image, exif=Image.Exif()).info.keys() == {"icc_profile", "xmp", "model", "quality"}
    assert image.info["xmp"] == XMP  # the picture stays as it was


def test_an_orientation_that_is_given_turns_the_picture(photo: Photo) -> None:
    source = Image.fromarray(photo[:64, :80])
    turned = reopened(source, exif=exif_of("turned", 6), quality=90)
    assert turned.size == (64, 80)
    assert turned.getexif()[ExifTags.Base.Orientation] == 1
    upright = np.asarray(source.transpose(Image.Transpose.ROTATE_270), float)
    assert np.abs(np.asarray(turned, float) - upright).mean() < 8


def test_its_own_orientation_is_applied_before_it_is_left_out(photo: Photo, tmp_path: Path) -> None:
    Image.fromarray(photo[:64, :80]).save(tmp_path / "a.jpg", exif=exif_of("turned", 6))
    for exif in (None, Image.Exif(), exif_of("another")):
        with Image.open(tmp_path / "a.jpg") as source:
            turned = reopened(source, exif=exif, quality=90)
            assert turned.size == (64, 80)
            assert np.abs(np.asarray(turned, float) - np.asarray(ImageOps.exif_transpose(source), float)).mean() < 8
            assert reopened(source, exif=source.getexif()).size == (64, 80)
            assert source.size == (80, 64)


def test_an_orientation_in_xmp_is_applied_before_it_is_left_out(photo: Photo, tmp_path: Path) -> None:
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    Image.fromarray(photo[:64, :80]).save(tmp_path / "a.jpg", xmp=xmp)
    with Image.open(tmp_path / "a.jpg") as source:
        for given in (None, b"<other/>", xmp):
            assert reopened(source, xmp=given).size == (64, 80)


def test_pixels_of_a_closed_file(path: Path) -> None:
    with Image.open(path) as opened:
        pass
    with pytest.raises(LichenImageError, match="closed before"):
        opened.load()


def test_tags_of_a_tiff_file_are_kept_beside_what_is_given(photo: Photo, tmp_path: Path) -> None:
    Image.fromarray(photo[:32, :48]).save(tmp_path / "a.tif", exif=exif_of("from TIFF"))
    with Image.open(tmp_path / "a.tif") as tiff:
        opened = reopened(tiff, xmp=XMP)
    assert opened.getexif()[ExifTags.Base.ImageDescription] == "from TIFF"
    assert ExifTags.Base.StripOffsets not in opened.getexif()
    assert opened.info["xmp"] == XMP


def test_what_cannot_be_saved_is_an_oserror_and_leaves_no_file(photo: Photo, tmp_path: Path) -> None:
    image = Image.fromarray(photo[:32, :48])
    for picture, options in ((image, {"quality": 101}), (image.convert("F"), {})):
        with pytest.raises(OSError, match=r"between 1 and 100|floating-point") as caught:
            picture.save(tmp_path / "a.lichen", **options)
        assert isinstance(caught.value, LichenError)
        assert isinstance(caught.value.__cause__, PictureError)
        assert list(tmp_path.iterdir()) == []
        buffer = io.BytesIO()
        with pytest.raises(LichenImageError):
            picture.save(buffer, "LICHEN", **options)
        assert buffer.getvalue() == b""


def test_a_big_picture_in_memory_is_no_bomb(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    image = Image.fromarray(photo[:32, :48])
    data = saved(image)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    with pytest.raises(LichenImageError):
        saved(image, max_pixels=100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(Image.DecompressionBombWarning), Image.open(io.BytesIO(data)) as opened:
        opened.load()


# ---- what is wrong ---------------------------------------------------------------------------------------------------


def test_other_formats_are_left_to_others(image: Image.Image) -> None:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert Image.open(io.BytesIO(buffer.getvalue())).format == "PNG"
    for data in (b"", b"\x89LI", b"no picture at all", b"\x89LICENCE" + bytes(90)):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(data))
    with pytest.raises(SyntaxError):
        LichenImageFile(io.BytesIO(buffer.getvalue()))


def test_a_damaged_header_says_so(path: Path) -> None:
    data = path.read_bytes()
    for bad in (data[:9], data[:20], data[:30] + b"?" + data[31:], data.replace(b"HEAD", b"TAIL")):
        with pytest.raises(OSError, match="get another copy") as caught:
            Image.open(io.BytesIO(bad))
        assert isinstance(caught.value, LichenError)
        assert isinstance(caught.value.__cause__, DamagedError)


def test_damage_after_the_header(path: Path) -> None:
    data = path.read_bytes()
    for part in parts(data)[1:]:
        at = part.offset + part.length // 2
        bad = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if part.type in ("TILE", "ALPH"):
            with Image.open(io.BytesIO(bad)) as opened:
                assert opened.size == (80, 64)
                with pytest.raises(OSError, match="checksum"):
                    opened.load()
        else:
            with pytest.raises(OSError, match="checksum"):
                Image.open(io.BytesIO(bad))


def test_truncated_files_open_and_do_not_load(path: Path) -> None:
    data = path.read_bytes()
    for n in range(60, len(data), 37):
        with Image.open(io.BytesIO(data[:n])) as opened:
            assert opened.size == (80, 64)
            with pytest.raises(OSError, match="ends too early"):
                opened.load()


def test_progressive_files_that_were_cut_short(photo: Photo, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(weights=Path(__file__).parent / "golden" / "toderici2017.safetensors")
    data = lichen.encode(photo[:64, :64], 100, model=model)
    cut = data[: parts(data)[3].offset]
    opened = Image.open(io.BytesIO(cut))
    assert isinstance(opened, LichenImageFile)
    opened.model = model
    with pytest.raises(OSError, match="whole layer"):
        opened.load()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    opened.load()
    assert np.array_equal(np.asarray(opened), np.asarray(lichen.decode(cut, model=model, partial=True)))


def test_verify(path: Path) -> None:
    with Image.open(path) as opened:
        opened.verify()
    data = path.read_bytes()
    tile = parts(data)[1]
    for bad in (data[:-1], data + b"?", data[: tile.offset] + b"?" + data[tile.offset + 1 :]):
        with Image.open(io.BytesIO(bad)) as opened, pytest.raises(OSError):
            opened.verify()


def test_a_file_that_changed_meanwhile(photo: Photo, tmp_path: Path) -> None:
    path = tmp_path / "a.lichen"
    Image.fromarray(photo[:32, :48]).save(path)
    with Image.open(path) as opened:
        path.write_bytes(lichen.encode(photo[:16, :16]))
        with pytest.raises(OSError, match="changed"):
            opened.load()


# ---- beside Pillow ---------------------------------------------------------------------------------------------------


def test_lichen_itself_still_refuses_to_encode_its_own_files(path: Path) -> None:
    for source in (path, path.read_bytes()):
        with pytest.raises(PictureError, match=r"a \.lichen file already"):
            lichen.encode(source)
    with pytest.raises(PictureError, match="choose PNG"):
        codec.decode_picture(path).save(io.BytesIO(), "LICHEN")
