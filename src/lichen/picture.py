"""Pictures in and out: pixels, alpha, ICC profile, EXIF, XMP, orientation. docs/pictures.md has the rules in full.

What Pillow reads becomes RGB or grey, upright, with its transparency and metadata beside it:

    L, 1                        -> grey
    I;16, I (0..65535)          -> grey of 16 bits
    LA, La                      -> grey and alpha
    RGB, RGBX, YCbCr, HSV, P    -> RGB
    RGBA, RGBa, PA              -> RGB and alpha
    L, I;16, RGB, P with a transparent colour -> the same and alpha
    CMYK, LAB                   -> sRGB, through the file's profile where it has one
    F                           -> PictureError: its scale is unknown

Pillow cuts 16 bits a channel to 8 where there is more than one channel: sixteen_bits.py reads and writes PNG
and TIFF files of that kind.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageCms, PngImagePlugin, UnidentifiedImageError, features
from PIL import TiffImagePlugin as T
from PIL.ImageFile import StubImageFile

from lichen import sixteen_bits
from lichen.container import SIGNATURE, write_atomic
from lichen.errors import DamagedError, LichenWarning, LimitError, PictureError, reason_of

MAX_PIXELS = 2 * (1024**3 // 4 // 3)
"""The default limit, 178,956,970 pixels: where Pillow too refuses to go on (`Image.MAX_IMAGE_PIXELS`, twice)."""

MAX_METADATA = 64 * 2**20  # bytes, of each of ICC profile, EXIF and XMP

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.unsignedinteger[Any]]  # uint8 or uint16
ImageLike = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | Levels


@dataclass(eq=False)
class Picture:
    """An upright picture of 8 or 16 bits a channel and what belongs to it. PictureError where the arrays do not fit."""

    pixels: Levels  # (H, W, 3) RGB, or (H, W) grey; 0 to 255 in uint8, to 65535 in uint16
    alpha: Levels | None = None  # (H, W), of the same type, 0 transparent to 255 or 65535 opaque, not premultiplied
    icc: bytes | None = None  # of the space of `pixels`; without one sRGB is meant
    exif: bytes | None = None  # from its TIFF header on, without "Exif\0\0"; its orientation, if any, is 1
    xmp: bytes | None = None  # the packet, in UTF-8 as a rule

    def __post_init__(self) -> None:
        _check_array(self.pixels, "pixels")
        if self.pixels.ndim != 2 and self.pixels.shape[2:] != (3,):
            raise PictureError(f"pixels have the shape (H, W, 3) or (H, W), not {self.pixels.shape}")
        if self.alpha is not None:
            _check_array(self.alpha, "alpha")
            if self.alpha.shape != self.pixels.shape[:2]:
                raise PictureError(f"alpha of shape {self.alpha.shape} does not fit pixels of {self.pixels.shape}")
            if self.alpha.dtype != self.pixels.dtype:
                raise PictureError(f"alpha of {self.alpha.dtype} does not fit pixels of {self.pixels.dtype}")

    @property
    def grey(self) -> bool:
        """Whether there is one channel instead of three."""
        return self.pixels.ndim == 2

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.pixels.shape[1])

    @property
    def depth(self) -> int:
        """Bits a channel: 8 or 16."""
        return 8 * self.pixels.itemsize

    def to_depth(self, depth: int) -> Picture:
        """With 8 or 16 bits a channel, as `to_8_bits` and `to_16_bits` have it."""
        return Picture(_at(depth, self.pixels), _at(depth, self.alpha), self.icc, self.exif, self.xmp)

    def stripped(self) -> Picture:
        """Without ICC profile, EXIF and XMP; colours of another profile become sRGB's, so that they look the same."""
        return Picture(self.pixels if self.icc is None else _to_srgb(self.pixels, self.icc), self.alpha)

    def to_pil(self) -> Image.Image:
        """A PIL image of mode L, LA, RGB or RGBA, of 8 bits a channel.

        `icc_profile`, `exif` and `xmp` are in its `info`, as Pillow has them.
        """
        image = Image.fromarray(np.ascontiguousarray(to_8_bits(self.pixels)))
        if self.alpha is not None:
            image.putalpha(Image.fromarray(np.ascontiguousarray(to_8_bits(self.alpha))))
        if self.icc:
            image.info["icc_profile"] = self.icc
        if self.exif:
            image.info["exif"] = _EXIF_PREFIX + self.exif
        if self.xmp:
            image.info["xmp"] = self.xmp
        return image

    def save(self, target: str | os.PathLike[str] | BinaryIO, format: str | None = None, **options: Any) -> list[str]:
        """Write to a path, whole or not at all, or to a binary file; returns what of the picture had to be left out.

        format: as Pillow names it ("PNG"); by default what the path's suffix says. options: Pillow's for that format,
        over our defaults: WebP lossless unless a quality is given, JPEG of quality 95 in 4:4:4, TIFF deflated if it has
        no EXIF. PNG, JPEG, WebP, TIFF and AVIF keep ICC profile, EXIF and XMP, JPEG as far as its segments reach, but
        compressed TIFF no EXIF; the others keep none. A picture of 16 bits a channel keeps them in PNG and TIFF, which
        then take no options, and has 8 in the other formats.

        Raises PictureError for an unknown format, transparency that the format does not have, and what Pillow refuses;
        OSError where the file cannot be written.
        """
        data, left_out = self._encoded(_format_of(target, format), options)
        if isinstance(target, str | os.PathLike):
            write_atomic(target, data)
        else:
            target.write(data)
        return left_out

    _DEFAULTS: ClassVar[dict[str, dict[str, Any]]] = {
        "JPEG": {"quality": 95, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},
    }

    def _encoded(self, format: str, options: Mapping[str, Any]) -> tuple[bytes, list[str]]:
        if self.depth == 16 and format in _DEEP:
            return self._encoded_16(format, options)
        image = self.to_pil()
        if self.alpha is not None and format not in _WITH_ALPHA:
            if to_8_bits(self.alpha).min() < 255:
                raise PictureError(f"{format} has no transparency and this picture has: write PNG, WebP or TIFF")
            image = image.convert(image.mode[:-1])
        image.info.clear()  # everything is handed over below, by one rule for all formats
        metadata = self._for_format(format)
        if format == "TIFF":
            if options.get("compression", "raw") != "raw":
                metadata.pop("EXIF")  # Pillow writes it to uncompressed TIFF alone
            elif not metadata["EXIF"]:
                options = {"compression": "tiff_adobe_deflate"} | dict(options)
        keep = {name: value for name, value in metadata.items() if value is not None}
        left_out = self._left_out(keep)
        arguments = dict(self._DEFAULTS.get(format, {}))
        if "quality" in options:
            arguments.pop("lossless", None)
        if "ICC profile" in keep:
            arguments["icc_profile"] = keep["ICC profile"]
        if format == "TIFF":
            arguments["exif"] = keep.get("EXIF", Image.Exif())
            if "XMP" in keep:
                arguments["exif"][_XMP_TAG] = keep["XMP"]
        elif "EXIF" in keep:
            arguments["exif"] = keep["EXIF"]
        if "XMP" in keep and format == "PNG":
            arguments["pnginfo"] = PngImagePlugin.PngInfo()
            arguments["pnginfo"].add_itxt("XML:com.adobe.xmp", keep["XMP"])
        elif "XMP" in keep and format != "TIFF":
            arguments["xmp"] = keep["XMP"]
        buffer = io.BytesIO()
        try:
            image.save(buffer, format, **arguments | dict(options))
        except Exception as e:
            raise PictureError(f"Pillow cannot write this picture as {format} ({reason_of(e)})") from e
        return buffer.getvalue(), ["16 bits a channel"] * (self.depth == 16) + left_out

    def _encoded_16(self, format: str, options: Mapping[str, Any]) -> tuple[bytes, list[str]]:
        """PNG or TIFF of 16 bits a channel."""
        if options:
            raise PictureError(f"{format} of 16 bits a channel takes no options ({', '.join(options)}): leave them out")
        keep = {name: value for name, value in self._for_format(format).items() if value is not None}
        samples = np.dstack([v for v in (self.pixels, self.alpha) if v is not None])
        try:
            if format == "PNG":
                like = Picture(to_8_bits(self.pixels[:1, :1]), None, self.icc, self.exif, self.xmp)
                data = sixteen_bits.write_png(samples, like._encoded("PNG", {})[0])
            else:
                data = sixteen_bits.write_tiff(samples, keep.get("EXIF", Image.Exif()), self.icc, self.xmp)
        except PictureError:
            raise
        except Exception as e:
            raise PictureError(f"this picture cannot be written as {format} ({reason_of(e)})") from e
        return data, self._left_out(keep)

    def _left_out(self, keep: Mapping[str, Any]) -> list[str]:
        """What this picture has and `keep` does not."""
        had = {"ICC profile": self.icc, "EXIF": self.exif, "XMP": self.xmp}
        return [name for name, value in had.items() if value and name not in keep]

    def _for_format(self, format: str) -> dict[str, Any]:
        """The metadata as the format takes it, None for what it cannot hold."""
        if format not in _WITH_METADATA:
            return {}
        found: dict[str, Any] = {"ICC profile": self.icc, "EXIF": None, "XMP": self.xmp}
        if self.exif:
            found["EXIF"] = _EXIF_PREFIX + self.exif
            if format in ("TIFF", "AVIF"):  # Pillow takes it apart for these
                parsed = _parsed(self.exif)
                if parsed is None:
                    found["EXIF"] = None
                elif format == "TIFF":
                    found["EXIF"] = _parsed(_descriptive(parsed) or b"") or Image.Exif()
        if format == "PNG" and self.xmp:
            try:
                found["XMP"] = self.xmp.decode("utf-8")
            except UnicodeDecodeError:
                found["XMP"] = None
        if format == "WEBP" or (format == "AVIF" and self.alpha is not None):  # Pillow makes RGB of grey for these
            found["ICC profile"] = _fitting(self.icc, grey=False)
        if format == "JPEG":
            for name, limit in (("ICC profile", 255 * 65519), ("EXIF", 65533), ("XMP", 65533 - 29)):
                if len(found[name] or b"") > limit:
                    found[name] = None
        return found


_DEEP = {"PNG", "TIFF"}  # that are written with 16 bits a channel
_WITH_METADATA = {"PNG", "JPEG", "WEBP", "TIFF", "AVIF"}
_WITH_ALPHA = {"PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "TGA"}


# ---- reading ---------------------------------------------------------------------------------------------------------


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
        with _pillow_limit(max_pixels), _pictures_errors("the picture"):
            return _from_pil(source, max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        name = "the data"
    elif isinstance(source, str | os.PathLike):
        name = os.fspath(source)
    elif callable(getattr(source, "read", None)):
        name = str(getattr(source, "name", "the file"))
    else:
        raise PictureError(f"a {type(source).__name__} is no picture: give a path, bytes, a PIL image or an array")
    with _pillow_limit(max_pixels), _pictures_errors(name), _opened(source) as file:
        return _from_file(file, name, max_pixels)


def _opened(source: Any) -> BinaryIO:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        return path.open("rb") if path.is_file() else io.BytesIO(path.read_bytes())  # a pipe has no way back
    return io.BytesIO(source if isinstance(source, bytes | bytearray | memoryview) else source.read())


def check_pixels(width: int, height: int, max_pixels: int | None = MAX_PIXELS) -> None:
    """LimitError where width x height exceeds max_pixels."""
    if max_pixels is not None and width * height > max_pixels:
        raise LimitError(
            f"the picture has {width}x{height} pixels and the limit is {max_pixels}: raise max_pixels if you trust it"
        )


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
                _warn(f"{name} has 16 bits a channel and 8 of them were taken: {sixteen_bits.INSTALL} to take all")
            return _from_pil(image, max_pixels)
        check_pixels(*image.size, max_pixels)
        image.load()  # finds what is broken
        channels = rawmode.index(";") + ("transparency" in image.info)
        return _from_pil(image, max_pixels, sixteen_bits.read_png(file, (image.height, image.width, channels)))


def _from_16_bit_tiff(file: BinaryIO, tags: Image.Exif, max_pixels: int | None) -> Picture:
    check_pixels(tags[T.IMAGEWIDTH], tags[T.IMAGELENGTH], max_pixels)
    check_pixels(tags.get(T.TILEWIDTH, 0), tags.get(T.TILELENGTH, 0), max_pixels)  # a tile is unpacked as a whole
    orientation = tags.get(_ORIENTATION_TAG, 1)
    samples = _upright(sixteen_bits.read_tiff(file, tags), orientation if orientation in range(1, 9) else 1)
    pixels, alpha = _split(samples)
    icc, xmp = _fitting(tags.get(T.ICCPROFILE), grey=pixels.ndim == 2), _xmp_of({"xmp": tags.get(_XMP_TAG)})
    return Picture(pixels, alpha, icc, _descriptive(tags), xmp and _xmp_upright(xmp))


def _warn(sentence: str) -> None:
    warnings.warn(sentence, LichenWarning, stacklevel=2)


def _from_pil(image: Image.Image, max_pixels: int | None, levels: Levels | None = None) -> Picture:
    """levels: (H, W, 2 to 4) to take in place of the pixels that Pillow made of the file."""
    check_pixels(*image.size, max_pixels)
    if not all(image.size):
        raise PictureError("the picture has no pixels")
    rawmode = _rawmode(image)  # gone once the pixels are loaded
    image.load()
    orientation = orientation_of(image) or 1
    if levels is not None:
        pixels, alpha, converted = *_split(levels), False
    else:
        pixels, alpha, converted = _to_arrays(image, rawmode)
    exif, xmp = exif_of(image), _xmp_of(image.info)
    return Picture(
        _upright(pixels, orientation),
        None if alpha is None else _upright(alpha, orientation),
        None if converted else _fitting(image.info.get("icc_profile"), grey=pixels.ndim == 2),
        exif and _exif_upright(exif),
        xmp and _xmp_upright(xmp),
    )


_lifting = threading.Lock()
_lifted = 0
_saved_limit: int | None = None


@contextlib.contextmanager
def _pillow_limit(max_pixels: int | None) -> Iterator[None]:
    """Let `max_pixels` rule in place of Pillow's own limit, which belongs to the whole process; safe among threads."""
    global _lifted, _saved_limit
    with _lifting:
        if not _lifted:
            _saved_limit = Image.MAX_IMAGE_PIXELS
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None:
            Image.MAX_IMAGE_PIXELS = None if max_pixels is None else max(limit, max_pixels)
        _lifted += 1
    try:
        yield
    finally:
        with _lifting:
            _lifted -= 1
            if not _lifted:
                Image.MAX_IMAGE_PIXELS = _saved_limit


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


def to_8_bits(levels: Levels) -> Pixels:
    """0..65535 -> 0..255: v / 257, rounded; uint8 as it is."""
    if levels.dtype == np.uint8:
        return levels.astype(np.uint8, copy=False)
    return ((np.minimum(levels, 65407) + np.uint16(128)) // np.uint16(257)).astype(np.uint8)  # 65408 + 128 overflows


def to_16_bits(levels: Levels) -> npt.NDArray[np.uint16]:
    """0..255 -> 0..65535: 257 v; uint16 as it is."""
    return levels * np.uint16(257) if levels.dtype == np.uint8 else levels.astype(np.uint16, copy=False)


def check_depth(depth: int) -> None:
    """PictureError for anything but 8 or 16 bits a channel."""
    if depth not in (8, 16):
        raise PictureError(f"{depth} bits a channel are not supported: take 8 or 16")


def _at(depth: int, levels: Any) -> Any:
    check_depth(depth)
    return levels if levels is None else to_8_bits(levels) if depth == 8 else to_16_bits(levels)


def _to_arrays(image: Image.Image, rawmode: str) -> tuple[Levels, Levels | None, bool]:
    """Pixels, alpha, and whether the colours were converted so that the file's profile is theirs no more."""
    mode = image.mode
    if mode == "F":
        raise PictureError("a picture of floating-point numbers has no known scale: bring it to 0..255 and 8 bits")
    if mode == "CMYK":
        return np.array(_cmyk_to_rgb(image)), None, True
    if mode == "LAB":
        return np.array(_lab_to_rgb(image)), None, True
    if mode in ("YCbCr", "HSV"):
        return np.array(image.convert("RGB")), None, False
    if mode.startswith("I"):
        grey = _as_16_bits(np.asarray(image))
        return grey, _key_alpha(image, grey), False
    if mode in ("P", "PA"):
        levels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        return (*_split(levels), False)
    if rawmode.startswith("LA;"):  # of which Pillow makes RGBA
        return (*_split(np.array(image.convert("LA"))), False)
    if mode in ("LA", "RGBA"):
        return (*_split(np.array(image)), False)
    if mode in ("La", "RGBa"):
        return (*_split(np.array(image.convert(mode.upper()))), False)
    if mode in ("1", "L", "RGB", "RGBX"):
        levels = np.array(image.convert("L") if mode == "1" else image.convert("RGB") if mode == "RGBX" else image)
        return levels, _key_alpha(image, levels, rawmode), False
    raise PictureError(f"pictures of Pillow's mode {mode} are not supported: convert it to RGB first")


def _split(levels: Levels) -> tuple[Levels, Levels | None]:
    """(H, W, 1 to 4) -> grey or RGB, and alpha where there is one."""
    channels = levels.shape[2]
    colours = levels[..., :3] if channels > 2 else levels[..., 0]
    alpha = np.ascontiguousarray(levels[..., -1]) if channels in (2, 4) else None
    return np.ascontiguousarray(colours), alpha


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


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """To sRGB by the file's profile (relative colorimetric, black point compensated), else by Pillow's formula."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            return _transformed(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # a broken profile, or one of another space
    return image.convert("RGB")


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    """CIE L*a*b* (D50) to sRGB."""
    return _transformed(image, ImageCms.createProfile("LAB"))


def _transformed(image: Image.Image, profile: Any) -> Image.Image:
    result = ImageCms.profileToProfile(
        image,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert result is not None
    return result


def _to_srgb(levels: Levels, icc: bytes) -> Levels:
    """From a profile's space to sRGB, as CMYK is; the levels as they are where the profile is broken."""
    source = levels
    if levels.ndim == 2 and icc[16:20] == b"RGB ":
        source = np.repeat(levels[..., None], 3, axis=2)
    if levels.dtype == np.uint16 and sixteen_bits.imagecodecs() is None:
        _warn(f"8 of 16 bits a channel went into the change to sRGB: {sixteen_bits.INSTALL} for all")
        return to_16_bits(_to_srgb(to_8_bits(levels), icc))
    try:
        if levels.dtype == np.uint16:
            colours = sixteen_bits.to_srgb(source, icc)
        else:
            colours = np.array(_transformed(Image.fromarray(source), ImageCms.ImageCmsProfile(io.BytesIO(icc))))
    except Exception:  # a broken profile, or one of another space: each library has errors of its own
        return levels
    return colours if levels.ndim == 3 else np.ascontiguousarray(colours[..., 1])


def _check_array(array: Levels, what: str) -> None:
    if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3):
        raise PictureError(f"{what} of {array.dtype} and shape {array.shape} are no picture: give uint8, (H, W, 3)")
    if not array.size:
        raise PictureError(f"{what} of shape {array.shape} are empty: a picture has one pixel at least")


# ---- orientation and metadata ----------------------------------------------------------------------------------------

_ORIENTATION_TAG = 0x0112
_XMP_TAG = 0x02BC
_EXIF_PREFIX = b"Exif\0\0"
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))([1-8])(?=["'<])""")


def orientation_of(image: Image.Image) -> int | None:
    """1 to 8, as EXIF defines it, or XMP where EXIF says nothing; None where neither does.

    Pillow turns TIFF by itself: None.
    """
    if hasattr(image, "tag_v2"):
        return None
    value = None
    with contextlib.suppress(Exception):  # EXIF that cannot be parsed says nothing
        value = image.getexif().get(_ORIENTATION_TAG)
    if value is None and (found := _XMP_ORIENTATION.search(_xmp_of(image.info) or b"")):
        value = int(found[2])
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def _upright(array: Levels, orientation: int) -> Levels:
    """(H, W, ...) as stored -> as meant (EXIF 2.32, section 4.6.4, tag 0x0112)."""
    if orientation >= 5:  # rows are columns
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def exif_of(image: Image.Image) -> bytes | None:
    """From its TIFF header on; of a TIFF file the tags that describe the picture."""
    raw = image.info.get("exif")
    if not isinstance(raw, bytes) and "Raw profile type exif" in image.info:
        raw = _raw_profile(image.info["Raw profile type exif"])
    if isinstance(raw, bytes):
        while raw.startswith(_EXIF_PREFIX):
            raw = raw[len(_EXIF_PREFIX) :]
        return raw or None
    return _descriptive(image.getexif())


def _xmp_of(info: Mapping[Any, Any]) -> bytes | None:
    raw = info.get("xmp") or info.get("XML:com.adobe.xmp") or _raw_profile(info.get("Raw profile type xmp"))
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogateescape")
    return raw if isinstance(raw, bytes) and raw else None


def _raw_profile(text: Any) -> bytes | None:
    """Bytes that ImageMagick hides in a PNG text chunk: a name, their number, and they in hexadecimal, line by line."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except (AttributeError, ValueError, TypeError):
        return None


def _fitting(raw: Any, grey: bool) -> bytes | None:
    """The profile, unless its colour space (ICC.1:2022, 7.2, bytes 16 to 19) cannot be that of the pixels."""
    if not isinstance(raw, bytes) or len(raw) < 128:
        return None
    return raw if raw[16:20] in ((b"GRAY", b"RGB ") if grey else (b"RGB ",)) else None


def _exif_upright(exif: bytes) -> bytes | None:
    """Set the orientation in IFD 0 to 1 and leave every other byte where it is; None where that cannot be done.

    Offsets within maker notes stay right, which a rewriting of the tags would break.
    """
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, at)
            if tag == _ORIENTATION_TAG:
                layout = {1: "B", 3: "H", 4: "I"}[kind]
                if values != 1:
                    return None
                one = struct.pack(order + layout, 1).ljust(4, b"\0")
                return exif[: at + 8] + one + exif[at + 12 :]
    except (KeyError, struct.error):
        return None
    return exif


def _xmp_upright(xmp: bytes) -> bytes:
    """Set `tiff:Orientation` to 1, as an attribute or as an element, the length unchanged."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def _parsed(exif: bytes) -> Image.Exif | None:
    """The tags, None where there are none or Pillow cannot write what it read."""
    parsed = Image.Exif()
    try:
        parsed.load(exif)
        parsed.tobytes()
    except Exception:  # not EXIF, whatever it is
        return None
    return parsed or None


_STRUCTURE = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291}
    | {292, 293, 317, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342, 343, 344, 345}
    | {346, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559}  # pixels and their coding
    | {700, 33723, 34377, 34675, 37724}  # XMP, IPTC, Photoshop's resources, ICC profile, layers
)
"""TIFF tags that say how the pixels are stored, or carry what is kept elsewhere, not what the picture is."""


def _descriptive(exif: Image.Exif) -> bytes | None:
    """The tags that describe the picture, with their Exif and GPS directories, from the TIFF header on."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            kept[tag] = dict(exif.get_ifd(tag))
        elif tag not in _STRUCTURE:
            kept[tag] = value
    try:
        return kept.tobytes()[len(_EXIF_PREFIX) :] if kept else None
    except Exception:  # tags that Pillow can read but not write
        return None


def compress_metadata(data: bytes) -> bytes:
    """A zlib stream (RFC 1950). LimitError beyond `MAX_METADATA`."""
    if len(data) > MAX_METADATA:
        raise LimitError(f"{len(data)} bytes of metadata in one piece: strip it, {MAX_METADATA} are kept at most")
    return zlib.compress(data, 9)


def decompress_metadata(data: bytes, limit: int = MAX_METADATA) -> bytes:
    """What `compress_metadata` was given. DamagedError for a broken stream or one of more than `limit` bytes."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, limit + 1)
    except zlib.error as e:
        raise DamagedError("the metadata cannot be unpacked: the file is damaged, get another copy") from e
    if len(result) > limit:
        raise DamagedError(f"the metadata unpacks to more than {limit} bytes: the file is damaged, get another copy")
    if not stream.eof or stream.unused_data:
        raise DamagedError("the metadata is cut short or has no end: the file is damaged, get another copy")
    return result


# ---- alpha -----------------------------------------------------------------------------------------------------------

_BAND = 2**22  # pixels
_WEBP_SIDE = 16383


def encode_alpha(alpha: Levels) -> bytes:
    """(H, W) uint8 or uint16 -> lossless: one byte where all are equal, else bands of rows of 4 megapixels at most.

    Bands: their height (4 bytes, big endian), then for each its length (4 bytes) and a WebP lossless file, grey as
    R = G = B; a PNG file of mode L where WebP does not reach (over 16383 pixels a side) or Pillow has none. On 13 masks
    (binary, soft, mattes, gradients, photographs) WebP was smaller on all, by 3 to 95 %; its method 3 at quality 100
    came within 8 % of the best method at a fortieth of the time. Where 16 bits say more than 8 (values that are no
    multiples of 257), a PNG file of 16-bit grey.
    """
    _check_array(alpha, "alpha")
    if alpha.dtype == np.uint16 and not (alpha % 257).any():
        alpha = to_8_bits(alpha)
    if alpha.dtype == np.uint8 and (alpha == alpha[0, 0]).all():
        return bytes([alpha[0, 0]])
    height, width = alpha.shape
    rows = min(height, max(1, _BAND // width))
    out = [struct.pack(">I", rows)]
    for top in range(0, height, rows):
        band = Image.fromarray(np.ascontiguousarray(alpha[top : top + rows]))
        buffer = io.BytesIO()
        if band.mode == "L" and max(band.size) <= _WEBP_SIDE and features.check("webp"):
            band.convert("RGB").save(buffer, "WEBP", lossless=True, quality=100, method=3)
        else:
            band.save(buffer, "PNG", optimize=True)
        out += [struct.pack(">I", len(buffer.getvalue())), buffer.getvalue()]
    return b"".join(out)


def decode_alpha(data: bytes, height: int, width: int, depth: int = 8) -> Levels:
    """What `encode_alpha` was given, in 8 or 16 bits; a band's size is checked before its pixels are unpacked.

    Raises DamagedError for anything else, PictureError where a Pillow without WebP meets it.
    """
    if len(data) == 1:
        return _at(depth, np.full((height, width), data[0], np.uint8))
    alpha = np.empty((height, width), np.uint8 if depth == 8 else np.uint16)
    with _pillow_limit(height * width):
        try:
            (rows,) = struct.unpack_from(">I", data)
            bands = -(-height // rows)
            if bands * 4 > len(data):
                raise DamagedError(f"{bands} bands in {len(data)} bytes")
            at = 4
            for top in range(0, height, rows):
                (length,) = struct.unpack_from(">I", data, at)
                if length > len(data) - at - 4:
                    raise DamagedError("a band is cut short")
                band = alpha[top : top + rows]
                band[:] = _at(depth, _decode_band(data[at + 4 : at + 4 + length], *band.shape))
                at += 4 + length
            if at != len(data):
                raise DamagedError("bytes follow the last band")
        except PictureError:
            raise
        except Exception as e:  # Pillow's for bad files are many
            raise DamagedError(f"the alpha channel is damaged ({reason_of(e)}): get another copy of the file") from e
    return alpha


def _decode_band(data: bytes, height: int, width: int) -> Levels:
    kinds = {b"\x89PNG": ("PNG", ("L", "I;16")), b"RIFF": ("WEBP", ("RGB",))}
    if data[:4] not in kinds:
        raise DamagedError("a band is neither WebP nor PNG")
    format, modes = kinds[data[:4]]
    if format == "WEBP" and not features.check("webp"):
        raise PictureError("the alpha channel is WebP and this Pillow has none: install Pillow from PyPI")
    if format == "WEBP" and _webp_lossless_size(data) != (width, height):
        raise DamagedError("a band has another size")
    with Image.open(io.BytesIO(data), formats=(format,)) as image:
        if image.size != (width, height) or image.mode not in modes:
            raise DamagedError("a band has another size")
        levels = np.asarray(image)
    return levels if levels.ndim == 2 else levels[..., 0]


def _webp_lossless_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a plain lossless WebP file (RFC 9649, sections 2.6 and 3.4), None for other kinds."""
    if data[8:16] != b"WEBPVP8L" or data[20:21] != b"\x2f" or len(data) < 25:
        return None
    (bits,) = struct.unpack_from("<I", data, 21)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


# ---- as chunks of a file ---------------------------------------------------------------------------------------------


def to_chunks(picture: Picture) -> dict[str, bytes]:
    """The payloads of the optional chunks: ALPH as of `encode_alpha`, ICCP, EXIF and XMP compressed."""
    chunks = {} if picture.alpha is None else {"ALPH": encode_alpha(picture.alpha)}
    for kind, data in (("ICCP", picture.icc), ("EXIF", picture.exif), ("XMP ", picture.xmp)):
        if data:
            chunks[kind] = compress_metadata(data)
    return chunks


def from_chunks(pixels: Levels, chunks: Mapping[str, bytes]) -> Picture:
    """Decoded pixels (H, W, 3) or (H, W), and what `to_chunks` gave. DamagedError where a payload is broken."""
    height, width = pixels.shape[:2]
    alpha = decode_alpha(chunks["ALPH"], height, width, 8 * pixels.itemsize) if "ALPH" in chunks else None
    icc, exif, xmp = (decompress_metadata(chunks[t]) if t in chunks else None for t in ("ICCP", "EXIF", "XMP "))
    return Picture(pixels, alpha, icc, exif, xmp)


# ---- formats ---------------------------------------------------------------------------------------------------------


def _format_of(target: str | os.PathLike[str] | BinaryIO, format: str | None) -> str:
    """Pillow's name of the format to write."""
    extensions = Image.registered_extensions()
    if format is None:
        if not isinstance(target, str | os.PathLike):
            raise PictureError("an open file has no suffix: name the format")
        format = Path(target).suffix
        if not format:
            raise PictureError(f"{target} has no suffix that names a format: end it in .png")
    name = format.upper().lstrip(".")
    name = extensions.get("." + name.lower(), name)
    if name not in Image.SAVE or name == "LICHEN":
        raise PictureError(f"Pillow cannot write {name}: choose PNG, WebP, TIFF or JPEG")
    if name in ("ICO", "ICNS"):
        raise PictureError(f"{name} has icons of set sizes in it, not a picture: choose PNG, WebP, TIFF or JPEG")
    return name


def readable_suffixes() -> set[str]:
    """Suffixes (".png", ...) of formats whose pixels Pillow reads; some of those that it knows it only recognises."""
    found = set()
    for suffix, name in Image.registered_extensions().items():
        reader = Image.OPEN.get(name, (None,))[0]
        if reader and name != "MPEG" and not (isinstance(reader, type) and issubclass(reader, StubImageFile)):
            found.add(suffix)
    return found
