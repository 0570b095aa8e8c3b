"""Any picture that Pillow reads -> Lichen's form. docs/pictures.md has the rules in full.

What Pillow reads becomes RGB or grey, upright, with its transparency and metadata beside it:

    L, 1                        -> grey
    I;16, I (0..65535)          -> grey of 16 bits
    LA, La                      -> grey and alpha
    RGB, RGBX, YCbCr, HSV, P    -> RGB
    RGBA, RGBa, PA              -> RGB and alpha
    L, I;16, RGB, P with a transparent colour -> the same and alpha
    CMYK, LAB                   -> sRGB, through the file's profile where it has one
    F                           -> PictureError: its scale is unknown
"""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from PIL import TiffImagePlugin as T
from PIL.ImageFile import StubImageFile

from lichen.container import SIGNATURE
from lichen.errors import LichenWarning, LimitError, PictureError, reason_of
from lichen.picture import sixteen_bits
from lichen.picture.colours import cmyk_to_srgb, lab_to_srgb
from lichen.picture.levels import Levels, split
from lichen.picture.limits import MAX_PIXELS, check_pixels, pillow_limit
from lichen.picture.metadata import (
    ORIENTATION_TAG,
    XMP_TAG,
    descriptive,
    exif_of,
    exif_upright,
    fitting_profile,
    orientation_of,
    xmp_of,
    xmp_upright,
)
from lichen.picture.picture import Picture

ImageLike = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | Levels


def load(source: ImageLike, *, max_pixels: int | None = MAX_PIXELS) -> Picture:
    """Read a picture and bring it into Lichen's form by the rules of docs/pictures.md.

    source: a path, the bytes of a file, an open binary file, a PIL image (its current frame; it stays as it is), or a
    uint8 or uint16 array (H, W), (H, W, 3) or (H, W, 4). Of an animated file the first frame is taken. max_pixels: None
    for no limit.

    Raises PictureError for what cannot be read or is not supported, LimitError beyond max_pixels. Warns with
    LichenWarning where 8 of 16 bits a channel were taken for want of imagecodecs.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        with pillow_limit(max_pixels), _pictures_errors("the picture"):
            return _from_pil(source, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        name = "the data"
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
    elif callable(getattr(source, "read", None)):
        name = str(getattr(source, "name", "the file"))
    else:
        raise PictureError(f"a {type(source).__name__} is no picture: give a path, bytes, a PIL image or an array")
    with pillow_limit(max_pixels), _pictures_errors(name), _opened(source) as file:
        return _from_file(file, name, max_pixels)


def _opened(source: Any) -> BinaryIO:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return path.open("rb") if path.is_file() else io.BytesIO(path.read_bytes())  # a pipe has no way back
    return io.BytesIO(source if isinstance(source, bytes | bytearray | memoryview) else source.read())


def _from_array(array: Levels, max_pixels: int | None) -> Picture:
    if array.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise PictureError(f"an array of {array.dtype} is no picture: give uint8, 0 to 255, or uint16, 0 to 65535")
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)):
        raise PictureError(f"an array of shape {array.shape} is no picture: give (H, W), (H, W, 3) or (H, W, 4)")
    check_pixels(array.shape[1], array.shape[0], max_pixels)
    native = array.dtype.newbyteorder("=")
    if array.shape[2:] == (4,):
        return Picture(np.ascontiguousarray(array[..., :3], native), np.ascontiguousarray(array[..., 3], native))
    return Picture(np.ascontiguousarray(array, native))


def _from_file(file: BinaryIO, name: str, max_pixels: int | None) -> Picture:
    if file.read(len(SIGNATURE)) == SIGNATURE:  # before Pillow looks, which may know the format: lichen.pillow
        raise PictureError(f"{name} is a .lichen file already: decode it, it needs no encoding")
    tags = sixteen_bits.tiff_tags(file)
    if tags is not None and sixteen_bits.imagecodecs() is not None:
        return _from_16_bit_tiff(file, tags, max_pixels)
    file.seek(0)
    try:
        image = Image.open(file)
    except UnidentifiedImageError:
        kind = "no picture" if tags is None else "of 16 bits a channel"
        what = "convert it to PNG first" if tags is None else sixteen_bits.INSTALL
        raise PictureError(f"{name} is {kind} that Pillow can read: {what}") from None
    with image:
        rawmode = _rawmode(image)
        if tags is None and rawmode not in ("LA;16B", "RGB;16B", "RGBA;16B"):
            return _from_pil(image, max_pixels)
        if sixteen_bits.imagecodecs() is None:
            if not image.mode.startswith("I"):
                lost = f"{name} has 16 bits a channel and 8 of them were taken"
                warnings.warn(f"{lost}: {sixteen_bits.INSTALL} to take all", LichenWarning, stacklevel=2)
            return _from_pil(image, max_pixels)
        check_pixels(*image.size, max_pixels)
        image.load()  # finds what is broken
        channels = rawmode.index(";") + ("transparency" in image.info)
        return _from_pil(image, max_pixels, sixteen_bits.read_png(file, (image.height, image.width, channels)))


def _from_16_bit_tiff(file: BinaryIO, tags: Image.Exif, max_pixels: int | None) -> Picture:
    check_pixels(tags[T.IMAGEWIDTH], tags[T.IMAGELENGTH], max_pixels)
    check_pixels(tags.get(T.TILEWIDTH, 0), tags.get(T.TILELENGTH, 0), max_pixels)  # a tile is unpacked as a whole
    orientation = tags.get(ORIENTATION_TAG, 1)
    samples = _upright(sixteen_bits.read_tiff(file, tags), orientation if orientation in range(1, 9) else 1)
    pixels, alpha = split(samples)
    icc, xmp = fitting_profile(tags.get(T.ICCPROFILE), grey=pixels.ndim == 2), xmp_of({"xmp": tags.get(XMP_TAG)})
    return Picture(pixels, alpha, icc, descriptive(tags), xmp and xmp_upright(xmp))


def _from_pil(image: Image.Image, max_pixels: int | None, levels: Levels | None = None) -> Picture:
    """levels: (H, W, 2 to 4) to take in place of the pixels that Pillow made of the file."""
    check_pixels(*image.size, max_pixels)
    if not all(image.size):
        raise PictureError("the picture has no pixels")
    rawmode = _rawmode(image)  # gone once the pixels are loaded
    image.load()
    orientation = orientation_of(image) or 1
    if levels is not None:
        pixels, alpha, converted = *split(levels), False
    else:
        pixels, alpha, converted = _to_arrays(image, rawmode)
    exif, xmp = exif_of(image), xmp_of(image.info)
    return Picture(
        _upright(pixels, orientation),
        None if alpha is None else _upright(alpha, orientation),
        None if converted else fitting_profile(image.info.get("icc_profile"), grey=pixels.ndim == 2),
        exif and exif_upright(exif),
        xmp and xmp_upright(xmp),
    )


@contextlib.contextmanager
def _pictures_errors(name: str) -> Iterator[None]:
    """Pillow's many exceptions for bad files, as ours."""
    try:
        yield
    except (PictureError, LimitError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise LimitError(f"{name} has too many pixels: raise max_pixels if you trust it ({e})") from e
    except Exception as e:  # plugins let through OSError, SyntaxError, ValueError, struct.error, KeyError and more
        raise PictureError(f"{name} cannot be read ({reason_of(e)}): check the path, or get another copy") from e


# ---- pixels ----------------------------------------------------------------------------------------------------------


def _to_arrays(image: Image.Image, rawmode: str) -> tuple[Levels, Levels | None, bool]:
    """Pixels, alpha, and whether the colours were converted so that the file's profile is theirs no more."""
    mode = image.mode
    if mode == "F":
        raise PictureError("a picture of floating-point numbers has no known scale: bring it to 0..255 and 8 bits")
    if mode == "CMYK":
        return np.array(cmyk_to_srgb(image)), None, True
    if mode == "LAB":
        return np.array(lab_to_srgb(image)), None, True
    if mode in ("YCbCr", "HSV"):
        return np.array(image.convert("RGB")), None, False
    if mode.startswith("I"):
        grey = _as_16_bits(np.asarray(image))
        return grey, _key_alpha(image, grey), False
    if mode in ("P", "PA"):
        levels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        return (*split(levels), False)
    if rawmode.startswith("LA;"):  # of which Pillow makes RGBA
        return (*split(np.array(image.convert("LA"))), False)
    if mode in ("LA", "RGBA"):
        return (*split(np.array(image)), False)
    if mode in ("La", "RGBa"):
        return (*split(np.array(image.convert(mode.upper()))), False)
    if mode in ("1", "L", "RGB", "RGBX"):
        levels = np.array(image.convert("L") if mode == "1" else image.convert("RGB") if mode == "RGBX" else image)
        return levels, _key_alpha(image, levels, rawmode), False
    raise PictureError(f"pictures of Pillow's mode {mode} are not supported: convert it to RGB first")


def _as_16_bits(levels: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    """Integers of any kind; PictureError where they are not in 0..65535."""
    low, high = int(levels.min()), int(levels.max())
    if low < 0 or high > 65535:
        raise PictureError(f"grey levels from {low} to {high} do not fit 16 bits: bring them to 0..65535 or 8 bits")
    return levels.astype(np.uint16)


def _rawmode(image: Image.Image) -> str:
    """Pillow's name of how the samples of a PNG file are stored, "" for all else; RGB;16B is of 16 bits, L;4 of 4."""
    tiles = getattr(image, "tile", None)
    return str(tiles[0][3]) if image.format == "PNG" and tiles else ""


def _key_alpha(image: Image.Image, levels: Levels, rawmode: str = "") -> Levels | None:
    """The alpha that a transparent colour (PNG's tRNS) stands for: 0 where `levels` equal it, opaque elsewhere."""
    key = image.info.get("transparency")
    if key is None:
        return None
    value = np.atleast_1d(np.asarray(key, dtype=np.int64))
    if value.size != (levels.shape[2] if levels.ndim == 3 else 1):
        raise PictureError("the picture's transparent colour makes no sense: convert it to RGBA first")
    if image.mode == "1":  # given as 1 or as 255
        value = np.where(value > 0, 255, 0)
    elif rawmode.endswith((";2", ";4")):
        value = value * 255 // (2 ** int(rawmode[-1]) - 1)
    elif rawmode.endswith(";16B"):
        value = value >> 8
    matches = levels == (value if levels.ndim == 3 else value[0])
    opaque = np.iinfo(levels.dtype).max
    return np.where(matches.all(axis=2) if levels.ndim == 3 else matches, 0, opaque).astype(levels.dtype)


def _upright(array: Levels, orientation: int) -> Levels:
    """(H, W, ...) as stored -> as meant (EXIF 2.32, section 4.6.4, tag 0x0112)."""
    if orientation >= 5:  # rows are columns
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


# ---- formats ---------------------------------------------------------------------------------------------------------


def readable_suffixes() -> set[str]:
    """Suffixes (".png", ...) of formats whose pixels Pillow reads; some of those that it knows it only recognises."""
    found = set()
    for suffix, name in Image.registered_extensions().items():
        reader = Image.OPEN.get(name, (None,))[0]
        if reader and name != "MPEG" and not (isinstance(reader, type) and issubclass(reader, StubImageFile)):
            found.add(suffix)
    return found
