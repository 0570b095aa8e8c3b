"""The report that people look at: one HTML file with everything in it, which works from disk and offline.

`page.html` draws; this file gathers what it draws, as JSON. All numbers come from here: the page computes none.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import html
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lichen.atomic import write_atomic
from lichen.benchmark import published, runner
from lichen.benchmark.bd import CurveError
from lichen.benchmark.codecs import Codec
from lichen.benchmark.datasets import pixels
from lichen.benchmark.report import METRICS, PUBLISHED, Point, Study, lichen_first
from lichen.benchmark.store import Row, digest
from lichen.errors import LichenError
from lichen.version import __version__

SHOWN = ("vtm", "bpg-444-x265", "bpg-444", "joint-neurips18-mse", "scale-hyperprior-iclr18-mse")
"""Published curves that are drawn at first; the others at a click."""

RATES = (0.2, 0.5, 1.0)
"""Bits per pixel of the pictures to look at, as near as a codec's settings come."""


@dataclass(frozen=True)
class Table:
    """A further table of the report."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass
class Report:
    """What a report says."""

    studies: Sequence[Study]
    title: str = "Codecs compared"
    notes: Sequence[str] = ()
    tables: Sequence[Table] = ()
    viewer: Sequence[Mapping[str, Any]] = ()
    anchor: str = "jpeg-420"
    times: str = "Seconds and memory a picture."
    made: str = field(default_factory=lambda: f"{datetime.date.today()}, Lichen {__version__}, {runner.machine()}")


def write(report: Report, path: str | Path) -> None:
    """Write the page, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, to_html(report).encode())


def to_html(report: Report) -> str:
    """The page."""
    data = {
        "title": report.title,
        "made": report.made,
        "metrics": METRICS,
        "sets": [_set(s, report) for s in report.studies],
        "notes": [*report.notes, *(n for s in report.studies for n in s.notes), *_sources(report.studies)],
        "tables": [{"title": t.title, "columns": t.columns, "rows": t.rows, "note": t.note} for t in report.tables],
        "viewer": list(report.viewer),
    }
    text = json.dumps(data, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    title = html.escape(report.title)
    template = template.replace("<title>Lichen benchmark</title>", f"<title>{title}</title>", 1)
    return template.replace("/*DATA*/", text.replace("<", "\\u003c"), 1)  # no tag ends the script


def _sources(studies: Sequence[Study]) -> list[str]:
    if not any(s.published for s in studies):
        return []
    return [f"Published figures: {s.title}, {s.url} ({s.licence})." for s in published.SOURCES.values()]


def _set(study: Study, report: Report) -> dict[str, Any]:
    measured = [_measured(study, c, i) for i, c in enumerate(lichen_first(study.codecs))]
    others = [_published(study, c, len(measured) + i) for i, c in enumerate(_shown_first(study.published))]
    known = study.known
    about = f"{study.pictures} pictures"
    if known:
        title = known.title[0].upper() + known.title[1:]
        about = f"{title}: {study.pictures} of {known.number or 'all'} pictures, {known.size}. Averages over pictures."
        if study.published and known.number and study.pictures < known.number:
            about += f" Published curves (dashed) are averages over all {known.number}: not comparable with these."
    return {
        "name": study.name,
        "about": about,
        "pictures": study.pictures,
        "codecs": measured + others,
        "anchor": report.anchor,
        "times": report.times,
        "bd": {m: _distances(study, m) for m in METRICS},
        "rows": [_row(r) for r in study.rows],
    }


def _shown_first(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda c: c.removesuffix(PUBLISHED) not in SHOWN)


def _measured(study: Study, codec: str, colour: int) -> dict[str, Any]:
    points = study.points(codec)
    return {
        "name": codec,
        "published": False,
        "shown": True,
        "colour": colour,
        "version": study.versions[codec],
        "pictures": points[0].pictures if points else 0,
        "points": [_point(p) for p in sorted(points, key=lambda p: p.bpp)],
    }


def _published(study: Study, label: str, colour: int) -> dict[str, Any]:
    codec = label.removesuffix(PUBLISHED)
    about = published.about(codec)
    points = [
        {"bpp": p.bpp, "psnr": p.psnr, "ms_ssim": p.ms_ssim, "ms-ssim": _decibels(p.ms_ssim)}
        for p in published.points(study.name, codec)
    ]
    return {
        "name": label,
        "published": True,
        "shown": codec in SHOWN and study.whole,
        "colour": colour,
        "about": ", ".join((about.title, about.citation)),
        "points": points,
    }


def _decibels(ms_ssim: float | None) -> float | None:
    from lichen.benchmark.metrics import decibels

    return None if ms_ssim is None else _finite(decibels(ms_ssim), 3)


def _finite(value: float | None, digits: int) -> float | None:
    return round(value, digits) if value is not None and math.isfinite(value) else None


def _point(p: Point) -> dict[str, Any]:
    return {
        "setting": p.setting,
        "bpp": round(p.bpp, 5),
        "psnr": _finite(p.psnr, 3),
        "psnr-y": _finite(p.psnr_y, 3),
        "psnr-yuv": _finite(p.psnr_yuv, 3),
        "ms_ssim": _finite(p.ms_ssim, 6),
        "ms-ssim": _finite(p.ms_ssim_db, 3),
        "encode_s": _finite(p.encode_s, 5),
        "decode_s": _finite(p.decode_s, 5),
        "encode_mb": _finite(p.encode_mb, 1),
        "decode_mb": _finite(p.decode_mb, 1),
    }


def _row(r: Row) -> list[Any]:
    quality = [_finite(r.psnr, 3), _finite(r.psnr_y, 3), _finite(r.psnr_yuv, 3), _finite(r.ms_ssim, 6)]
    times = [_finite(r.encode_s, 5), _finite(r.decode_s, 5)]
    return [r.image, r.codec, r.setting, r.bytes, round(r.bpp, 5), *quality, *times]


def _distances(study: Study, metric: str) -> dict[str, dict[str, Any]]:
    """Anchor -> test -> BD-rate and its range, or why there is none."""
    drawn = [c for c in (*study.codecs, *study.published) if _has(study, c, metric)]
    found: dict[str, dict[str, Any]] = {}
    for anchor in drawn:
        found[anchor] = {}
        for test in drawn:
            if test == anchor:
                continue
            try:
                d = study.compare(test, anchor, metric)
            except CurveError as e:
                found[anchor][test] = {"why": str(e)}
                continue
            found[anchor][test] = {
                "rate": round(d.rate.value, 2),
                "low": round(d.rate.low, 2),
                "high": round(d.rate.high, 2),
                "quality": round(d.quality.value, 3),
                "from": round(d.quality.low, 4),
                "to": round(d.quality.high, 4),
                "pictures": d.pictures,
            }
    return found


def _has(study: Study, codec: str, metric: str) -> bool:
    try:
        return bool(study.curve(codec, metric).bpp)
    except CurveError:
        return False


# ---- pictures to look at ---------------------------------------------------------------------------------------------


def viewer(
    study: Study, codecs: Sequence[Codec], paths: Sequence[Path], folder: Path, number: int = 2
) -> list[dict[str, Any]]:
    """Decoded pictures of all codecs at about `RATES` on some of the paths, evenly spaced, kept in `folder`.

    They are shown as JPEG of quality 92, 4:4:4, so that a report stays small; the numbers beside them are of the
    pictures as decoded.
    """
    found = []
    for i in runner.spread(len(paths), number):
        picture = pixels(paths[i])
        of = digest(picture)
        versions = []
        for codec in codecs:
            rows = [r for r in study.rows if r.codec == codec.name and r.pixels == of]
            for row in dict.fromkeys(min(rows, key=lambda r: abs(math.log(r.bpp / rate))) for rate in RATES if rows):
                try:
                    data = _shown(codec, row, picture, folder)
                except LichenError:
                    continue
                versions.append(
                    {
                        "codec": codec.name,
                        "setting": row.setting,
                        "bpp": round(row.bpp, 5),
                        "psnr": _finite(row.psnr, 3),
                        "ms_ssim": _finite(row.ms_ssim, 5),
                        "src": _url(data),
                    }
                )
        versions.sort(key=lambda v: not str(v["codec"]).startswith("lichen"))
        height, width = picture.shape[:2]
        about = {"set": study.name, "name": paths[i].name, "width": width, "height": height}
        found.append({**about, "src": _url(_jpeg(picture)), "versions": versions})
    return found


def _shown(codec: Codec, row: Row, picture: np.ndarray[Any, Any], folder: Path) -> bytes:
    key = hashlib.sha256(f"{row.codec} {row.version} {row.setting} {row.pixels}".encode()).hexdigest()[:24]
    path = folder / f"{key}.jpg"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _jpeg(codec.decode(codec.encode(picture, row.setting))))
    return path.read_bytes()


def _jpeg(picture: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=92, subsampling="4:4:4", optimize=True)
    return file.getvalue()


def _url(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
