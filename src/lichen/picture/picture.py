"""A picture in Lichen's form, how it is written to other formats, and the chunks that it fills in a file."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from PIL import Image, PngImagePlugin

from lichen.atomic import write_atomic
from lichen.errors import PictureError, reason_of
from lichen.picture import sixteen_bits
from lichen.picture.alpha import decode_alpha, encode_alpha
from lichen.picture.colours import to_srgb
from lichen.picture.levels import Levels, at_depth, check_array, to_8_bits
from lichen.picture.metadata import EXIF_PREFIX, XMP_TAG, compress, decompress, descriptive, fitting_profile, parse_exif


@dataclass(eq=False)
class Picture:
    """An upright picture of 8 or 16 bits a channel and what belongs to it. PictureError where the arrays do not fit."""

    pixels: Levels  # (H, W, 3) RGB, or (H, W) grey; 0 to 255 in uint8, to 65535 in uint16
    alpha: Levels | None = None  # (H, W), of the same type, 0 transparent to 255 or 65535 opaque, not premultiplied
    icc: bytes | None = None  # of the space of `pixels`; without one sRGB is meant
    exif: bytes | None = None  # from its TIFF header on, without "Exif\0\0"; its orientation, if any, is 1
    xmp: bytes | None = None  # the packet, in UTF-8 as a rule

    def __post_init__(self) -> None:
        check_array(self.pixels, "pixels")
        if self.pixels.ndim != 2 and self.pixels.shape[2:] != (3,):
            raise PictureError(f"pixels have the shape (H, W, 3) or (H, W), not {self.pixels.shape}")
        if self.alpha is not None:
            check_array(self.alpha, "alpha")
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
        return Picture(at_depth(depth, self.pixels), at_depth(depth, self.alpha), self.icc, self.exif, self.xmp)

    def stripped(self) -> Picture:
        """Without ICC profile, EXIF and XMP; colours of another profile become sRGB's, so that they look the same."""
        return Picture(self.pixels if self.icc is None else to_srgb(self.pixels, self.icc), self.alpha)

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
            image.info["exif"] = EXIF_PREFIX + self.exif
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
                arguments["exif"][XMP_TAG] = keep["XMP"]
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
            found["EXIF"] = EXIF_PREFIX + self.exif
            if format in ("TIFF", "AVIF"):  # Pillow takes it apart for these
                parsed = parse_exif(self.exif)
                if parsed is None:
                    found["EXIF"] = None
                elif format == "TIFF":
                    found["EXIF"] = parse_exif(descriptive(parsed) or b"") or Image.Exif()
        if format == "PNG" and self.xmp:
            try:
                found["XMP"] = self.xmp.decode("utf-8")
            except UnicodeDecodeError:
                found["XMP"] = None
        if format == "WEBP" or (format == "AVIF" and self.alpha is not None):  # Pillow makes RGB of grey for these
            found["ICC profile"] = fitting_profile(self.icc, grey=False)
        if format == "JPEG":
            for name, limit in (("ICC profile", 255 * 65519), ("EXIF", 65533), ("XMP", 65533 - 29)):
                if len(found[name] or b"") > limit:
                    found[name] = None
        return found


_DEEP = {"PNG", "TIFF"}  # that are written with 16 bits a channel
_WITH_METADATA = {"PNG", "JPEG", "WEBP", "TIFF", "AVIF"}
_WITH_ALPHA = {"PNG", "WEBP", "TIFF", "AVIF", "JPEG2000", "TGA"}


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


# ---- as chunks of a file ---------------------------------------------------------------------------------------------


def to_chunks(picture: Picture) -> dict[str, bytes]:
    """The payloads of the optional chunks: ALPH as of `encode_alpha`, ICCP, EXIF and XMP compressed."""
    chunks = {} if picture.alpha is None else {"ALPH": encode_alpha(picture.alpha)}
    for kind, data in (("ICCP", picture.icc), ("EXIF", picture.exif), ("XMP ", picture.xmp)):
        if data:
            chunks[kind] = compress(data)
    return chunks


def from_chunks(pixels: Levels, chunks: Mapping[str, bytes]) -> Picture:
    """Decoded pixels (H, W, 3) or (H, W), and what `to_chunks` gave. DamagedError where a payload is broken."""
    height, width = pixels.shape[:2]
    alpha = decode_alpha(chunks["ALPH"], height, width, 8 * pixels.itemsize) if "ALPH" in chunks else None
    icc, exif, xmp = (decompress(chunks[t]) if t in chunks else None for t in ("ICCP", "EXIF", "XMP "))
    return Picture(pixels, alpha, icc, exif, xmp)
