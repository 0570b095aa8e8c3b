"""`import lichen.pillow` lets Pillow open and save .lichen files. docs/pillow.md tells how.

>>> image = Image.open("photo.lichen")           # size, mode and metadata are there, pixels when they are needed
>>> image.save("smaller.lichen", quality=40)     # the options of `lichen.encode`, by their names

Torch is imported when a picture is decoded or encoded, not before.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile

from lichen.container import MODELS, SIGNATURE, Container, outline, read_part
from lichen.errors import LichenError, NotLichenError
from lichen.picture.metadata import decompress, exif_of, orientation_of

if TYPE_CHECKING:
    from lichen.models.base import Model

FORMAT = "LICHEN"
_INFO = {"ICCP": "icc_profile", "EXIF": "exif", "XMP ": "xmp"}


class LichenImageError(LichenError, OSError):
    """What Lichen refuses, for those who expect OSError of Pillow; the cause is the error of Lichen's own."""


class LichenImageFile(ImageFile.ImageFile):
    """A .lichen file: its header and metadata when it is opened, its pixels when they are first asked for.

    `info` has "model", "quality" (1 to 100, where the model has several), and as far as the file has them
    "icc_profile", "exif" and "xmp". With `ImageFile.LOAD_TRUNCATED_IMAGES` a progressive file that was cut short is
    decoded as far as it goes.
    """

    format = FORMAT
    format_description = "Lichen compressed image"

    model: Model | None = None
    """Set it before the pixels are needed where the file was written with weights that do not ship."""

    def _open(self) -> None:
        assert self.fp is not None
        with _errors_of_pillow():
            try:
                header, parts = outline(self.fp)
            except NotLichenError as e:
                raise SyntaxError(str(e)) from e  # which tells Pillow to try another format
            metadata = {part.type: read_part(self.fp, part) for part in parts if part.type in _INFO}
            for kind, payload in metadata.items():
                if data := decompress(payload):
                    self.info[_INFO[kind]] = b"Exif\0\0" + data if kind == "EXIF" else data
        self._size = header.width, header.height
        self._mode = ("L" if header.grey else "RGB") + "A" * any(part.type == "ALPH" for part in parts)
        self.info["model"] = (
            header.model if isinstance(header.model, str) else MODELS.get(header.model, str(header.model))
        )
        if header.quality:
            self.info["quality"] = header.quality / 256
        self.tile = [ImageFile._Tile("lichen", (0, 0, *self.size), 0, None)]  # pixels are still to come

    def load(self) -> Any:
        """Decode. LichenImageError, which is an OSError, for files that are damaged or need other weights."""
        if self.tile:
            from lichen.codec import decode

            if self.fp is None or self.fp.closed:
                raise LichenImageError("the file was closed before its pixels were needed: load() while it is open")
            self.fp.seek(0)
            with _errors_of_pillow():  # Pillow has checked the number of pixels
                decoded = decode(
                    self.fp.read(), model=self.model, max_pixels=None, partial=ImageFile.LOAD_TRUNCATED_IMAGES
                )
            if (decoded.size, decoded.mode) != (self.size, self.mode):
                raise LichenImageError("the file has changed since it was opened: open it again")
            self.im, self.readonly, self.tile = decoded.im, decoded.readonly, []
            if self._exclusive_fp:
                self.fp.close()
            self.fp = None
        return super().load()

    def load_seek(self, pos: int) -> None:
        """Nothing: that there is one tells `ImageFile.Parser` to wait for the whole file."""

    def verify(self) -> None:
        """Check everything but the coded pixels themselves: each part's place and checksum."""
        try:
            if self.fp is not None:
                self.fp.seek(0)
                with _errors_of_pillow():
                    Container.from_bytes(self.fp.read())
        finally:
            super().verify()


@contextlib.contextmanager
def _errors_of_pillow() -> Iterator[None]:
    """Lichen's errors as those that Pillow's own plugins raise."""
    try:
        yield
    except LichenError as e:
        raise LichenImageError(str(e)) from e


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(SIGNATURE)


def _save(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Encode, then write in one go. As Pillow has it, options that `encode` does not know are ignored."""
    from lichen.codec import encode

    known = inspect.signature(encode).parameters.keys() - {"image"}
    options = {"max_pixels": None} | {k: v for k, v in im.encoderinfo.items() if k in known}
    with _errors_of_pillow():
        data = encode(_with_metadata(im, im.encoderinfo), **options)
    fp.write(data)


def _with_metadata(im: Image.Image, given: dict[str, Any]) -> Image.Image:
    """The picture itself, or a copy with what of icc_profile, exif and xmp was given in place of its own."""
    given = {name: given[name] for name in _INFO.values() if name in given}
    if not given:
        return im
    if isinstance(given.get("exif"), Image.Exif):
        given["exif"] = given["exif"].tobytes() if given["exif"] else None
    if isinstance(given.get("xmp"), str):
        given["xmp"] = given["xmp"].encode()
    given.setdefault("exif", exif_of(im))  # TIFF has it elsewhere than in info
    copy = im.copy()
    for name in ("XML:com.adobe.xmp", "Raw profile type xmp") if "xmp" in given else ():
        copy.info.pop(name, None)
    copy.info.pop("Raw profile type exif", None)
    copy.info.update(given)
    own = orientation_of(im)
    if own is not None and own > 1 and orientation_of(copy) is None:  # which went with what was replaced
        copy = copy.transpose(_UPRIGHT[own])
    return copy


_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What an orientation asks for."""


Image.register_open(FORMAT, LichenImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".lichen")
Image.register_mime(FORMAT, "image/x-lichen")
