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

runner.measure([Png()], datasets.folder("pictures"), store.Store("results.jsonl"))
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import PIL
from PIL import Image, features

from lichen.benchmark.programs import QUALITIES, CodecError, CommandCodec
from lichen.benchmark.video import FFmpegCodec, VtmCodec
from lichen.errors import WeightsError
from lichen.picture import Pixels

if TYPE_CHECKING:
    from lichen.models.base import Model

LICHEN_QUALITIES = (5.0, 20.0, 40.0, 60.0, 80.0, 95.0)


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
    setting_of: str = "quality"  # or "rate": target bits per pixel, as OpenJPEG takes them

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
        option = {"quality": round(setting)} if self.setting_of == "quality" else {"quality_layers": [24 / setting]}
        Image.fromarray(picture).save(file, self.format, **self.options, **option)
        return file.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """The file's pixels."""
        with Image.open(io.BytesIO(data), formats=(self.format,)) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class HeifCodec:
    """HEVC intra through pillow-heif: libheif's x265, 8-bit YCbCr.

    libheif tunes x265 for SSIM unless told otherwise (1.5 dB less at the same setting), and after any tuning it sets
    `psy-rd` to 1 (10 % more rate at the same PSNR). This one is told PSNR and no `psy-rd`.
    """

    name: str
    chroma: int  # 444, 420
    settings: Sequence[float]
    options: Mapping[str, str] = field(
        default_factory=lambda: {"tune": "psnr", "x265:psy-rd": "0", "x265:psy-rdoq": "0"}
    )

    @functools.cached_property
    def version(self) -> str:
        """Libraries and options. CodecError where there is no encoder."""
        try:
            import pillow_heif
        except ImportError as e:
            raise CodecError("HEVC needs the package pillow-heif: pip install 'lichen[benchmark]'") from e
        info = pillow_heif.libheif_info()
        if not info["HEIF"]:
            raise CodecError(f"this pillow-heif ({pillow_heif.__version__}) has no HEVC encoder: install a wheel of it")
        options = "".join(f", {k}={v}" for k, v in self.options.items())
        return f"{info['HEIF']}, libheif {info['libheif']}, chroma={self.chroma}{options}"

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """The .heic file at that quality."""
        import pillow_heif

        file = io.BytesIO()
        pillow_heif.from_pillow(Image.fromarray(picture)).save(
            file, quality=round(setting), chroma=self.chroma, enc_params=dict(self.options), save_nclx_profile=True
        )
        return file.getvalue()

    def decode(self, data: bytes) -> Pixels:
        """The file's pixels."""
        import pillow_heif

        return np.asarray(pillow_heif.open_heif(io.BytesIO(data)).to_pillow().convert("RGB"))


@dataclass(frozen=True)
class JpegXlCodec:
    """JPEG XL through imagecodecs: libjxl on one thread. Settings are Butteraugli distances, 1 about transparent."""

    name: str = "jpegxl"
    settings: Sequence[float] = (0.5, 1.0, 2.0, 3.5, 6.0, 9.0, 14.0, 20.0)
    effort: int = 7

    @functools.cached_property
    def version(self) -> str:
        """Libraries and options. CodecError where they are missing."""
        try:
            import imagecodecs
        except ImportError as e:
            raise CodecError("JPEG XL needs the package imagecodecs: pip install 'lichen[benchmark]'") from e
        if not imagecodecs.JPEGXL.available:
            raise CodecError(f"this imagecodecs ({imagecodecs.__version__}) has no JPEG XL: install a wheel of it")
        return f"{imagecodecs.jpegxl_version()}, imagecodecs {imagecodecs.__version__}, effort={self.effort}"

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """The file at that distance."""
        import imagecodecs

        return bytes(imagecodecs.jpegxl_encode(picture, distance=setting, effort=self.effort, numthreads=1))

    def decode(self, data: bytes) -> Pixels:
        """The file's pixels."""
        import imagecodecs

        return np.asarray(imagecodecs.jpegxl_decode(data, numthreads=1))


class LichenCodec:
    """Models of Lichen through their files: by default the one that ships for an objective, else `model`, or those of
    weights files.

    weights: one file of variable rate, whose settings are qualities from 1 to 100, or files of one quality each, whose
    settings are their numbers from 1. threads: of torch, for the whole process; None leaves them as they are.
    """

    def __init__(
        self,
        model: Model | None = None,
        *,
        objective: str = "mse",
        weights: str | Path | Sequence[str | Path] | None = None,
        name: str = "lichen",
        settings: Sequence[float] | None = None,
        threads: int | None = None,
    ) -> None:
        self.name, self._model, self.objective, self.threads = name, model, objective, threads
        self._files = (weights,) if isinstance(weights, (str, Path)) else tuple(weights or ())
        self._settings = settings

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which loads files itself."""
        return {k: v for k, v in self.__dict__.items() if k != "models"}

    @functools.cached_property
    def models(self) -> tuple[Model, ...]:
        """The weights, loaded at first use. WeightsError where they are missing."""
        import lichen

        if self._model is not None:
            return (self._model,)
        found = tuple(lichen.load(weights=f) for f in self._files) or (lichen.load(objective=self.objective),)
        if len(found) > 1 and any(m.variable_rate for m in found):
            raise CodecError(f"{self.name}: one file has all qualities already, give it alone")
        return found

    @property
    def model(self) -> Model:
        """The first model."""
        return self.models[0]

    @property
    def trained_for(self) -> str:
        """What its weights were trained for, in words."""
        if self.model.own_loss is not None:
            return "a loss of its own"
        return {"mse": "MSE", "ms-ssim": "MS-SSIM"}[self.model.objective]

    def _set_threads(self) -> None:
        """At every use: other codecs share the process."""
        import torch

        if self.threads not in (None, torch.get_num_threads()):
            torch.set_num_threads(self.threads)

    @property
    def settings(self) -> Sequence[float]:
        """Qualities, or numbers of models."""
        if self._settings is not None:
            return self._settings
        if self.model.variable_rate:
            return LICHEN_QUALITIES
        return tuple(float(i + 1) for i in range(len(self.models)))

    @property
    def version(self) -> str:
        """Lichen's version, the models' names and their weights' identities."""
        import lichen
        from lichen.codec import identity_of

        identities = " ".join(identity_of(m).hex() for m in self.models)
        return f"Lichen {lichen.__version__}, {self.model.name} {identities}"

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """The .lichen file at quality `setting`, 1 to 100, or of the model of that number."""
        import lichen

        self._set_threads()
        if self.model.variable_rate:
            return lichen.encode(picture, setting, model=self.model)
        return lichen.encode(picture, model=self.models[round(setting) - 1])

    def decode(self, data: bytes) -> Pixels:
        """The file's pixels."""
        import lichen
        from lichen.codec import identity_of, read

        self._set_threads()
        wanted = read(data).header.weights
        model = next((m for m in self.models if identity_of(m) == wanted), self.model)
        return np.asarray(lichen.decode(data, model=model).convert("RGB"))


def _x265(name: str, chroma: str) -> FFmpegCodec:
    parameters = "qp={q}:aq-mode=0:psy-rd=0:psy-rdoq=0:cutree=0:info=0:log-level=error:pools=none:frame-threads=1"
    options = ("-preset", "veryslow", "-tune", "psnr", "-x265-params", parameters)
    return FFmpegCodec(name, "libx265", "hevc", chroma, options, (12.0, 17.0, 22.0, 27.0, 32.0, 37.0, 42.0, 47.0))


def _jpeg2000(name: str, irreversible: bool) -> PillowCodec:
    bpp = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)  # to aim at
    options = {
        "irreversible": irreversible,
        "mct": 1,
        "quality_mode": "rates",
    }  # Pillow's default: lossless, RGB as it is
    return PillowCodec(name, "JPEG2000", "jpg_2000", bpp, options, "rate")


def _pillow_avif(name: str, chroma: str) -> PillowCodec:
    options = {"speed": 6, "subsampling": chroma, "max_threads": 1}
    return PillowCodec(name, "AVIF", "avif", (10.0, 20.0, 35.0, 50.0, 65.0, 80.0, 90.0), options)


def _bpg(name: str, chroma: str) -> CommandCodec:
    encoder = f"bpgenc -e x265 -m 9 -b 8 -f {chroma} -q {{q}} -o {{out.bpg}} {{in}}"
    return CommandCodec(name, encoder, "bpgdec -o {out} {in.bpg}", (12.0, 17.0, 22.0, 27.0, 32.0, 37.0, 42.0, 47.0))


_HEIF_QUALITIES = (5.0, 15.0, 22.0, 30.0, 38.0, 46.0, 55.0, 65.0)

CODECS: dict[str, Callable[[], Codec]] = {
    "lichen": LichenCodec,
    "lichen-ms-ssim": lambda: LichenCodec(objective="ms-ssim", name="lichen-ms-ssim"),
    "jpeg-420": lambda: PillowCodec("jpeg-420", "JPEG", "jpg", QUALITIES, {"optimize": True, "subsampling": "4:2:0"}),
    "jpeg-444": lambda: PillowCodec("jpeg-444", "JPEG", "jpg", QUALITIES, {"optimize": True, "subsampling": "4:4:4"}),
    "webp": lambda: PillowCodec("webp", "WEBP", "webp", QUALITIES, {"method": 6}),
    "webp-m4": lambda: PillowCodec("webp-m4", "WEBP", "webp", QUALITIES, {"method": 4}),  # libwebp's default
    "jpeg2000-97": lambda: _jpeg2000("jpeg2000-97", irreversible=True),
    "jpeg2000-53": lambda: _jpeg2000("jpeg2000-53", irreversible=False),
    "avif-420": lambda: _pillow_avif("avif-420", "4:2:0"),
    "avif-444": lambda: _pillow_avif("avif-444", "4:4:4"),
    "jpegxl": JpegXlCodec,
    "hevc-444": lambda: HeifCodec("hevc-444", 444, _HEIF_QUALITIES),
    "hevc-420": lambda: HeifCodec("hevc-420", 420, _HEIF_QUALITIES),
    "x265-444": lambda: _x265("x265-444", "444"),
    "x265-420": lambda: _x265("x265-420", "420"),
    "vvc-420": lambda: FFmpegCodec(
        "vvc-420",
        "libvvenc",
        "vvc",
        "420",
        ("-preset", "slow", "-qpa", "0", "-qp", "{q}", "-threads", "1"),
        (22.0, 27.0, 32.0, 37.0),
    ),
    "bpg-444": lambda: _bpg("bpg-444", "444"),
    "bpg-420": lambda: _bpg("bpg-420", "420"),
    "vtm-444": VtmCodec,
    "vtm-420": lambda: VtmCodec("vtm-420", "420"),
}
"""What can be named on a command line: name -> how to make it."""

GROUPS = {
    "jpeg": ("jpeg-420", "jpeg-444"),
    "jpeg2000": ("jpeg2000-97", "jpeg2000-53"),
    "avif": ("avif-420", "avif-444"),
    "hevc": ("hevc-444", "hevc-420"),
    "x265": ("x265-444", "x265-420"),
    "vvc": ("vvc-420",),
    "bpg": ("bpg-444",),
    "vtm": ("vtm-444",),
}
"""Short names of several."""


def create(name: str) -> Codec:
    """A codec by its name; CodecError for one that is not known or that cannot run here."""
    if name not in CODECS:
        raise CodecError(f"no codec is called {name}: there are {', '.join(CODECS)}")
    codec = CODECS[name]()
    _ = codec.version  # whatever is missing shows here and not after an hour
    return codec


def create_all(names: Iterable[str]) -> tuple[list[Codec], list[str]]:
    """The codecs of names and of groups, each once, and a sentence for each that cannot run here.

    "lichen-all" stands for every set of weights that ships. CodecError for a name that is not known.
    """
    wanted: list[str] = []
    for name in names:
        if name not in CODECS and name not in GROUPS and name != "lichen-all":
            raise CodecError(f"no codec is called {name}: there are {', '.join([*CODECS, *GROUPS, 'lichen-all'])}")
        wanted += [n for n in GROUPS.get(name, (name,)) if n not in wanted]
    found: list[Codec] = []
    missing: list[str] = []
    for name in wanted:
        try:
            found += shipped() if name == "lichen-all" else [create(name)]
        except (CodecError, WeightsError) as e:
            missing.append(f"{name} was not measured: {e}")
    return found, missing


def shipped() -> list[Codec]:
    """Every set of weights that ships: each file of variable rate, and together those of one quality of each model."""
    from lichen.models import weights

    several: dict[str, list[Path]] = {}
    found: list[Codec] = []
    for path in weights.shipped().values():
        if weights.read(path).variable_rate:
            found.append(LichenCodec(weights=path, name=f"lichen-{path.stem}"))
        else:
            several.setdefault(weights.metadata_of(path)["model"], []).append(path)
    return found + [LichenCodec(weights=paths, name=f"lichen-{model}") for model, paths in several.items()]
