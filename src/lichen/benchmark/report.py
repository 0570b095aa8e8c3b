"""Averages over pictures, comparisons, and tables of them: of 80 columns, and of Markdown."""

from __future__ import annotations

import math
import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lichen.benchmark import datasets, metrics, published
from lichen.benchmark.bd import BDPSNR, BDRate, Curve, CurveError, bd_psnr, bd_rate
from lichen.benchmark.store import Row


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


@dataclass(frozen=True)
class Distance:
    """How far a curve lies from an anchor."""

    rate: BDRate
    quality: BDPSNR
    pictures: int | None  # that both were averaged over; None between published ones


def lichen_first(codecs: Iterable[str]) -> list[str]:
    """The order in which codecs are shown."""
    return sorted(codecs, key=lambda c: not c.startswith("lichen"))


PUBLISHED = " (published)"
"""Ends the label of a published curve, which is thereby never taken for a measured one."""


def latest(rows: Iterable[Row]) -> list[Row]:
    """Those of each codec's last version."""
    rows = list(rows)
    version = {r.codec: r.version for r in rows}
    return [r for r in rows if r.version == version[r.codec]]


class Study:
    """The measurements on one set of pictures, and the published curves of that set.

    Codecs go by their names, published ones by theirs and `PUBLISHED`. Of several versions of a codec the last one
    counts. A setting that failed on some pictures is left out, and `notes` says so.
    """

    def __init__(self, name: str, rows: Iterable[Row]) -> None:
        self.name, self.notes = name, list[str]()
        self.rows = self._complete(latest(rows))
        self.codecs = list(dict.fromkeys(r.codec for r in self.rows))
        self.versions = {r.codec: r.version for r in self.rows}
        self.pictures = len({r.pixels for r in self.rows})
        self._pixels = {c: frozenset(r.pixels for r in self.rows if r.codec == c) for c in self.codecs}
        self.published = [c + PUBLISHED for c in published.codecs(name)]
        self._points: dict[tuple[str, frozenset[str]], list[Point]] = {}

    def _complete(self, rows: list[Row]) -> list[Row]:
        pixels: defaultdict[tuple[str, float], set[str]] = defaultdict(set)
        for r in rows:
            pixels[r.codec, r.setting].add(r.pixels)
        most: defaultdict[str, set[str]] = defaultdict(set)
        for (codec, _), found in pixels.items():
            most[codec] |= found
        for (codec, setting), found in pixels.items():
            if found != most[codec]:
                lacks = f"{len(found)} of {len(most[codec])} pictures"
                self.notes.append(f"{self.name}: {codec} at {setting:g} was measured on {lacks} and is left out.")
        return [r for r in rows if pixels[r.codec, r.setting] == most[r.codec]]

    @property
    def known(self) -> datasets.Dataset | None:
        """The registered set that this is, if any."""
        return datasets.DATASETS.get(self.name)

    @property
    def whole(self) -> bool:
        """Whether all pictures of the set were measured, as publications have it."""
        return self.known is None or self.known.number in (None, self.pictures)

    def points(self, codec: str, pixels: Collection[str] | None = None) -> list[Point]:
        """A measured codec's averages, over some of the pictures where `pixels` names them."""
        key = codec, self._pixels[codec] if pixels is None else self._pixels[codec] & frozenset(pixels)
        if key not in self._points:
            chosen = [r for r in self.rows if r.codec == codec and r.pixels in key[1]]
            self._points[key] = averages(chosen).get(codec, [])
        return self._points[key]

    def curve(self, codec: str, metric: str = "psnr", pixels: Collection[str] | None = None) -> Curve:
        """A measured or published codec's curve, without lossless points. CurveError where there is none."""
        if codec.endswith(PUBLISHED):
            try:
                return published.curve(self.name, codec.removesuffix(PUBLISHED), metric)
            except published.PublishedError as e:
                raise CurveError(str(e)) from e
        found = curve(codec, self.points(codec, pixels), metric)
        finite = [p for p in zip(found.bpp, found.quality, strict=True) if math.isfinite(p[1])]
        return Curve.of(codec, finite)

    def compare(self, test: str, anchor: str, metric: str = "psnr") -> Distance:
        """BD-rate and BD-quality over the pictures that both were measured on. CurveError where they do not compare.

        A published average is compared with measurements on the whole set alone.
        """
        measured = [c for c in (test, anchor) if not c.endswith(PUBLISHED)]
        pixels = frozenset.intersection(*(self._pixels[c] for c in measured)) if measured else None
        if pixels is not None and not pixels:
            raise CurveError(f"{test} and {anchor} were measured on no picture in common")
        if pixels is not None and len(measured) == 1 and self.known and len(pixels) != self.known.number:
            raise CurveError(
                f"{measured[0]} was measured on {len(pixels)} pictures, and the published average is over "
                f"{self.known.number}"
            )
        a, b = self.curve(test, metric, pixels), self.curve(anchor, metric, pixels)
        return Distance(bd_rate(a, b), bd_psnr(a, b), None if pixels is None else len(pixels))


def comparison_table(study: Study, anchor: str) -> str:
    """One line a measured codec: BD-rate by PSNR and by MS-SSIM against an anchor, with the overlap."""
    lines = [f"{'codec':<16}{'PSNR':>9}{'over dB':>14}{'MS-SSIM':>11}{'over dB':>14}{'pictures':>10}"]
    for codec in study.codecs:
        if codec == anchor:
            continue
        line, pictures = f"{codec:<16}", ""
        for metric, width in (("psnr", 9), ("ms-ssim", 11)):
            try:
                d = study.compare(codec, anchor, metric)
            except CurveError:
                line += f"{'-':>{width}}{'':>14}"
                continue
            line += f"{f'{d.rate.value:+.1f} %':>{width}}{f'{d.rate.low:.1f}-{d.rate.high:.1f}':>14}"
            pictures = str(d.pictures or "")
        lines.append(line + f"{pictures:>10}")
    return "\n".join(lines)


def markdown(studies: Iterable[Study], anchors: Sequence[str], metrics_: Sequence[str] = ("psnr", "ms-ssim")) -> str:
    """BD-rates against each anchor, and times, as tables for a README or a paper."""
    lines: list[str] = []
    for study in studies:
        lines += [f"## {study.name}, {study.pictures} pictures", ""]
        for anchor in anchors:
            if anchor not in (*study.codecs, *study.published) or (anchor in study.published and not study.whole):
                continue
            lines += [f"BD-rate against {anchor}, PCHIP over the whole overlap", ""]
            lines.append("| codec | " + " | ".join(METRICS[m] for m in metrics_) + " |")
            lines.append("|---|" + "---|" * len(metrics_))
            for codec in study.codecs:
                if codec != anchor:
                    cells = [_cell(study, codec, anchor, m) for m in metrics_]
                    lines.append(f"| {codec} | " + " | ".join(cells) + " |")
            lines.append("")
        timed = {c: [p for p in study.points(c) if p.encode_s is not None] for c in study.codecs}
        if any(timed.values()):
            lines += ["| codec | encode, s | decode, s | encode, MB | decode, MB |", "|---|---|---|---|---|"]
            for codec, points in timed.items():
                if points:
                    seconds = [_mean(points, "encode_s"), _mean(points, "decode_s")]
                    memory = [_mean(points, "encode_mb"), _mean(points, "decode_mb")]
                    cells = ["-" if v is None else f"{v:.3f}" for v in seconds]
                    cells += ["-" if v is None else f"{v:.0f}" for v in memory]
                    lines.append(f"| {codec} | " + " | ".join(cells) + " |")
            lines.append("")
        lines += ["| codec | version and options |", "|---|---|"]
        lines += [f"| {c} | `{study.versions[c]}` |" for c in study.codecs]
        lines += ["", *study.notes]
    return "\n".join(lines).rstrip() + "\n"


def _mean(points: Iterable[Point], field: str) -> float | None:
    values = [v for p in points if (v := getattr(p, field)) is not None]
    return fmean(values) if values else None


def _cell(study: Study, test: str, anchor: str, metric: str) -> str:
    try:
        d = study.compare(test, anchor, metric)
    except CurveError:
        return "-"
    some = f", {d.pictures} pictures" if d.pictures not in (None, study.pictures) else ""
    return f"{d.rate.value:+.1f} % ({d.rate.low:.1f} to {d.rate.high:.1f} dB{some})"
