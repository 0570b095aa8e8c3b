"""Rate-distortion figures that others published, for curves beside measured ones. None was measured here.

`published.csv` has the points: averages over a data set's pictures of bits per pixel, of PSNR in dB over RGB and, where
it was given, of MS-SSIM over RGB as a plain value. `published_codecs.csv` says what each codec is and where its points
are from.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lichen.benchmark.bd import Curve
from lichen.benchmark.metrics import decibels
from lichen.errors import LichenError


class PublishedError(LichenError):
    """Figures that are not in the table."""


@dataclass(frozen=True)
class Source:
    """Where figures were taken from."""

    title: str
    url: str
    licence: str


SOURCES = {
    "compressai": Source(
        "CompressAI's results: its own trained models, classical codecs, and figures of papers",
        "https://github.com/InterDigitalInc/CompressAI/tree/master/results",
        "BSD-3-Clause-Clear",
    ),
    "tfc": Source(
        "TensorFlow Compression's results: the points of the original papers, and classical codecs",
        "https://github.com/tensorflow/compression/tree/master/results",
        "Apache-2.0",
    ),
}


@dataclass(frozen=True)
class About:
    """What a published codec is."""

    codec: str
    title: str
    citation: str
    source: Source


@dataclass(frozen=True)
class Point:
    """A published average over the pictures of a data set."""

    bpp: float
    psnr: float  # dB, RGB
    ms_ssim: float | None  # 0..1, RGB


def codecs(dataset: str) -> list[str]:
    """The codecs with figures on a data set ("kodak", "tecnick"), sorted."""
    return sorted(codec for d, codec in _points() if d == dataset)


def about(codec: str) -> About:
    """A codec's title, citation and source. PublishedError for an unknown one."""
    try:
        return _about()[codec]
    except KeyError:
        raise PublishedError(f"no published codec is called {codec}: there are {', '.join(_about())}") from None


def points(dataset: str, codec: str) -> tuple[Point, ...]:
    """A codec's points by increasing rate. PublishedError where there are none."""
    try:
        return _points()[dataset, codec]
    except KeyError:
        known = ", ".join(codecs(dataset)) or "nothing"
        raise PublishedError(f"{codec} has no published figures on {dataset}: there is {known}") from None


def curve(dataset: str, codec: str, metric: str = "psnr") -> Curve:
    """A codec's curve in dB: of "psnr", or of "ms-ssim" as -10 log10(1 - MS-SSIM).

    Raises PublishedError where the figures were not given.
    """
    if metric not in ("psnr", "ms-ssim"):
        raise PublishedError(f"no metric is called {metric}: there are psnr and ms-ssim")
    found: list[tuple[float, float]] = []
    for p in points(dataset, codec):
        if metric == "psnr":
            found.append((p.bpp, p.psnr))
        elif p.ms_ssim is not None:
            found.append((p.bpp, decibels(p.ms_ssim)))
    if not found:
        raise PublishedError(f"{codec} has no published MS-SSIM on {dataset}: ask for psnr")
    return Curve.of(codec, found, published=True)


@functools.cache
def _points() -> Mapping[tuple[str, str], tuple[Point, ...]]:
    found: dict[tuple[str, str], list[Point]] = {}
    for row in _read("published.csv"):
        ms_ssim = float(row["ms_ssim"]) if row["ms_ssim"] else None
        point = Point(float(row["bpp"]), float(row["psnr"]), ms_ssim)
        found.setdefault((row["dataset"], row["codec"]), []).append(point)
    return {key: tuple(sorted(group, key=lambda p: p.bpp)) for key, group in found.items()}


@functools.cache
def _about() -> Mapping[str, About]:
    rows = _read("published_codecs.csv")
    return {r["codec"]: About(r["codec"], r["title"], r["citation"], SOURCES[r["source"]]) for r in rows}


def _read(name: str) -> list[dict[str, str]]:
    with (Path(__file__).parent / name).open(encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))
