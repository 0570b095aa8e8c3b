"""Codecs under one small protocol. Whatever has its five members can be measured; a class of 20 lines adds a codec:

class Png:
    name = "png"
    version = f"Pillow {PIL.__version__}"
    settings = (6.0,)

    def encode(self, picture, setting):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG", compress_level=int(setting))
        return file.getvalue()

    def decode(self, data):
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

runner.measure([Png()], datasets.folder("pictures"), runner.Store("results.jsonl"))
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import PIL
from PIL import Image, features

from lichen.errors import LichenError
from lichen.picture import Pixels

if TYPE_CHECKING:
    from lichen.models.base import Model

QUALITIES = (10.0, 20.0, 35.0, 50.0, 65.0, 80.0, 90.0, 95.0)
"""Default settings of JPEG and WebP."""

LICHEN_QUALITIES = (5.0, 20.0, 40.0, 60.0, 80.0, 95.0)


class CodecError(LichenError):
    """A codec that is not known or cannot run here."""


class Codec(Protocol):
    """What can be measured."""

    @property
    def name(self) -> str:
        """One word; tells configurations of the same format apart."""
        ...

    @property
    def version(self) -> str:
        """Of the program, its options or weights: results measured with another version are not used again."""
        ...

    @property
    def settings(self) -> Sequence[float]:
        """What to encode with, one point of the curve each: a quality, a quantiser, a target rate."""
        ...

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """uint8 RGB (H, W, 3) -> the whole file."""
        ...

    def decode(self, data: bytes) -> Pixels:
        """The file -> uint8 RGB (H, W, 3), knowing nothing else."""
        ...


@dataclass(frozen=True)
class PillowCodec:
    """A format that Pillow writes and reads."""

    name: str
    format: str  # Pillow's name of it
    library: str  # Pillow's name of the library behind it
    settings: Sequence[float]
    options: Mapping[str, Any] = field(default_factory=dict)
    option_of: Callable[[float], Mapping[str, Any]] = lambda setting: {"quality": round(setting)}

    @functools.cached_property
    def version(self) -> str:
        """Library, Pillow and the options. CodecError where this Pillow has no such library."""
        if not features.check(self.library):
            raise CodecError(
                f"this Pillow ({PIL.__version__}) cannot do {self.format}: install one with {self.library}"
            )
        turbo = self.library == "jpg" and features.version("libjpeg_turbo")
        library = f"libjpeg-turbo {turbo}" if turbo else f"{self.library} {features.version(self.library)}"
        options = "".join(f", {k}={v}" for k, v in sorted(self.options.items()))
        return f"{library}, Pillow {PIL.__version__}{options}"

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """The file at that setting."""
        file = io.BytesIO()
        Image.fromarray(picture).save(file, self.format, **self.options, **self.option_of(setting))
        return file.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """The file's pixels."""
        with Image.open(io.BytesIO(data), formats=(self.format,)) as image:
            return np.asarray(image.convert("RGB"))


class LichenCodec:
    """A model of Lichen through its files: by default the one that ships, else `model`, or that of a weights file.

    threads: of torch, for the whole process; None leaves them as they are.
    """

    def __init__(
        self,
        model: Model | None = None,
        *,
        weights: str | Path | None = None,
        name: str = "lichen",
        settings: Sequence[float] = LICHEN_QUALITIES,
        threads: int | None = None,
    ) -> None:
        self.name, self.settings = name, settings
        self._model, self._weights, self._threads = model, weights, threads

    @functools.cached_property
    def model(self) -> Model:
        """The weights, loaded at first use. WeightsError where they are missing."""
        import torch

        import lichen

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        return lichen.load(weights=self._weights) if self._model is None else self._model

    @property
    def version(self) -> str:
        """Lichen's version, the model's name and its weights' identity."""
        import lichen
        from lichen.codec import identity_of

        return f"Lichen {lichen.__version__}, {self.model.name} {identity_of(self.model).hex()}"

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """The .lichen file at quality `setting`, 1 to 100."""
        import lichen

        return lichen.encode(picture, setting, model=self.model)

    def decode(self, data: bytes) -> Pixels:
        """The file's pixels."""
        import lichen

        return np.asarray(lichen.decode(data, model=self.model).convert("RGB"))


CODECS: dict[str, Callable[[], Codec]] = {
    "lichen": LichenCodec,
    "jpeg-420": lambda: PillowCodec("jpeg-420", "JPEG", "jpg", QUALITIES, {"optimize": True, "subsampling": "4:2:0"}),
    "jpeg-444": lambda: PillowCodec("jpeg-444", "JPEG", "jpg", QUALITIES, {"optimize": True, "subsampling": "4:4:4"}),
    "webp": lambda: PillowCodec("webp", "WEBP", "webp", QUALITIES, {"method": 6}),
    "jpeg2000": lambda: PillowCodec(
        "jpeg2000",
        "JPEG2000",
        "jpg_2000",
        (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0),  # target bits per pixel
        {"irreversible": True, "mct": 1, "quality_mode": "rates"},  # Pillow's default is lossless: 5/3, RGB as it is
        lambda bpp: {"quality_layers": [24 / bpp]},
    ),
    "avif-420": lambda: PillowCodec(
        "avif-420", "AVIF", "avif", (10.0, 20.0, 35.0, 50.0, 65.0, 80.0, 90.0), {"speed": 4, "subsampling": "4:2:0"}
    ),
    "avif-444": lambda: PillowCodec(
        "avif-444", "AVIF", "avif", (10.0, 20.0, 35.0, 50.0, 65.0, 80.0, 90.0), {"speed": 4, "subsampling": "4:4:4"}
    ),
}
"""What can be named on a command line: name -> how to make it."""


def create(name: str) -> Codec:
    """A codec by its name; CodecError for one that is not known or that cannot run here."""
    if name not in CODECS:
        raise CodecError(f"no codec is called {name}: there are {', '.join(CODECS)}")
    codec = CODECS[name]()
    _ = codec.version  # whatever is missing shows here and not after an hour
    return codec
