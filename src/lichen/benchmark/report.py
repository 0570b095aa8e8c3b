"""Averages over pictures, and tables of them that fit 80 columns."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lichen.benchmark import metrics
from lichen.benchmark.bd import Curve, CurveError, bd_psnr, bd_rate
from lichen.benchmark.runner import Row


@dataclass(frozen=True)
class Point:
    """A codec at one setting, averaged over pictures: each picture counts the same, whatever its size."""

    setting: float
    pictures: int
    bpp: float
    psnr: float  # dB, the mean of the pictures' PSNR
    ms_ssim: float | None  # the mean of the pictures' MS-SSIM; None where it was not measured on all of them
    encode_s: float | None  # seconds a picture, the mean of those that were timed
    decode_s: float | None
    psnr_y: float | None = None  # dB
    psnr_yuv: float | None = None  # dB, 6:1:1
    encode_mb: float | None = None  # peak memory in 10^6 bytes
    decode_mb: float | None = None

    @property
    def ms_ssim_db(self) -> float | None:
        """-10 log10(1 - mean MS-SSIM), as publications that give the mean allow it."""
        return None if self.ms_ssim is None else metrics.decibels(self.ms_ssim)


def averages(rows: Iterable[Row]) -> dict[str, list[Point]]:
    """Codec -> its points by setting. CurveError where a codec's settings were measured on different pictures."""
    groups: defaultdict[str, defaultdict[float, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row.codec][row.setting].append(row)
    found: dict[str, list[Point]] = {}
    for codec, settings in groups.items():
        if len({tuple(sorted(r.pixels for r in group)) for group in settings.values()}) > 1:
            raise CurveError(f"{codec} was not measured on the same pictures at every setting: measure the rest")
        found[codec] = [_point(setting, group) for setting, group in sorted(settings.items())]
    return found


def _point(setting: float, rows: Sequence[Row]) -> Point:
    similarities = [r.ms_ssim for r in rows if r.ms_ssim is not None]

    def mean(values: Iterable[float | None], *, of_all: bool = False) -> float | None:
        found = [v for v in values if v is not None]
        return fmean(found) if found and (len(found) == len(rows) or not of_all) else None

    return Point(
        setting,
        len(rows),
        fmean(r.bpp for r in rows),
        fmean(r.psnr for r in rows),
        fmean(similarities) if len(similarities) == len(rows) else None,
        mean(r.encode_s for r in rows),
        mean(r.decode_s for r in rows),
        mean((r.psnr_y for r in rows), of_all=True),
        mean((r.psnr_yuv for r in rows), of_all=True),
        mean(r.encode_mb for r in rows),
        mean(r.decode_mb for r in rows),
    )


METRICS = {
    "psnr": "PSNR, RGB (dB)",
    "ms-ssim": "MS-SSIM, RGB (dB)",
    "psnr-y": "PSNR, Y (dB)",
    "psnr-yuv": "PSNR, YUV 6:1:1 (dB)",
}
"""What curves are drawn and compared in."""


def curve(label: str, points: Iterable[Point], metric: str = "psnr") -> Curve:
    """The rate-distortion curve of one of `METRICS`, MS-SSIM in dB. CurveError where that was not measured."""
    pairs: list[tuple[float, float]] = []
    for p in points:
        quality = {"psnr": p.psnr, "ms-ssim": p.ms_ssim_db, "psnr-y": p.psnr_y, "psnr-yuv": p.psnr_yuv}[metric]
        if quality is None:
            raise CurveError(f"{METRICS[metric]} of {label} was not measured: measure it")
        pairs.append((p.bpp, quality))
    return Curve.of(label, pairs)


def rate_distortion_table(points: Mapping[str, Sequence[Point]]) -> str:
    """One line a codec and setting; MS-SSIM where it was measured."""
    with_ms_ssim = any(p.ms_ssim is not None for group in points.values() for p in group)

    def line(codec: str, setting: str, bpp: str, psnr: str, ms_ssim: str, *seconds: str) -> str:
        similarity = f"{ms_ssim:>16}" if with_ms_ssim else ""
        return f"{codec:<16}{setting:>8}{bpp:>10}{psnr:>10}{similarity}" + "".join(f"{s:>10}" for s in seconds)

    lines = [line("codec", "setting", "bpp", "PSNR, dB", "MS-SSIM (dB)", "encode, s", "decode, s")]
    for codec, group in points.items():
        for p in group:
            ms_ssim = "-" if p.ms_ssim is None else f"{p.ms_ssim:.4f} ({p.ms_ssim_db:.2f})"
            seconds = ["-" if t is None else f"{t:.3f}" for t in (p.encode_s, p.decode_s)]
            lines.append(line(codec, f"{p.setting:g}", f"{p.bpp:.4f}", f"{p.psnr:.3f}", ms_ssim, *seconds))
    return "\n".join(lines)


def bd_table(test: Curve, anchors: Iterable[Curve]) -> str:
    """BD-rate and BD-PSNR (PCHIP over the full overlap) of one curve against others, with the overlap."""
    lines = [f"{test.title + ' against':<28}{'BD-rate, %':>10}{'over dB':>16}{'BD-PSNR, dB':>12}{'over bpp':>14}"]
    for anchor in anchors:
        try:
            rate, quality = bd_rate(test, anchor), bd_psnr(test, anchor)
        except CurveError as e:
            lines += textwrap.wrap(f"{anchor.title:<28}none: {e}", 80, subsequent_indent=" " * 28)
            continue
        lines.append(
            f"{anchor.title:<28}{rate.value:>+10.1f}{f'{rate.low:.2f}-{rate.high:.2f}':>16}"
            f"{quality.value:>+12.2f}{f'{quality.low:.3f}-{quality.high:.3f}':>14}"
        )
    return "\n".join(lines)
