"""The default model's training: BD-rate on Kodak, from real files, against what it has seen; with a fit.

    python scripts/training_curve.py --data KODAK --weights FILE --hours H --gigapixels G [--what TEXT]   # measure
    python scripts/training_curve.py                                                    # table and figure alone

Measurements are kept in docs/training-logs/light-kodak.csv; the table and the fit go into docs/training.md, the figure
beside it. Hours are of two processor cores, of unlike machines, so the fit is against pixels seen: BD-rate = a + b
log2(pixels), by least squares over the points that ended a training, where the rate had fallen to zero. Kodak is looked
at here, to report; what ships is chosen on held-out training pictures.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import groupby
from pathlib import Path

import numpy as np
import pages

from lichen.benchmark import codecs, datasets, published, report, runner
from lichen.benchmark.bd import Curve, CurveError, bd_rate
from lichen.benchmark.store import Store
from lichen.errors import LichenError

DOCS = Path(__file__).parent.parent / "docs"
LOG = DOCS / "training-logs" / "light-kodak.csv"
FIGURE = DOCS / "training-curve.svg"
PACE = 1.18e6  # pixels a second that two cores with AVX512-BF16 made in the last training
ANCHORS = {"bpg-444-x265": "BPG (x265, 4:4:4)", "jpeg-420": "JPEG (4:2:0)"}
"""Published curves on Kodak."""


@dataclass(frozen=True)
class Line:
    """Weights at one quality, averaged over Kodak's pictures."""

    gigapixels: float  # seen in training, over all trainings
    hours: float
    ended: int  # whether the rate had fallen to zero: 1 or 0
    what: str
    quality: float
    bpp: float
    psnr: float


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", metavar="DIR", help="Kodak's folder")
    p.add_argument("--weights", metavar="FILE")
    p.add_argument("--hours", type=float, metavar="H", help="of training in all, of two cores")
    p.add_argument("--gigapixels", type=float, metavar="G", help="seen in all")
    p.add_argument("--midway", action="store_true", help="the rate had not fallen to zero: leave it out of the fit")
    p.add_argument("--what", default="", metavar="TEXT")
    args = p.parse_args()
    needed = (args.data, args.weights, args.hours, args.gigapixels)
    if any(needed) and None in needed:
        p.error("--data, --weights, --hours and --gigapixels go together")
    try:
        if args.weights:
            add(measure(args))
        text = table(lines_of(LOG))
    except LichenError as e:
        print(f"training_curve: {e}", file=sys.stderr)
        return 1
    print(text)
    pages.write(DOCS / "training.md", "curve", text, "training_curve.py")
    draw(lines_of(LOG), FIGURE)
    return 0


def measure(args: argparse.Namespace) -> list[Line]:
    """Through files of all 24 pictures at the settings of the benchmark."""
    pictures = datasets.find("kodak", args.data)
    codec = codecs.LichenCodec(weights=args.weights)
    with tempfile.TemporaryDirectory() as folder:
        rows = runner.measure([codec], pictures, Store(Path(folder) / "rows.jsonl"))
    points = report.averages(rows)[codec.name]
    ended = int(not args.midway)
    return [Line(args.gigapixels, args.hours, ended, args.what, p.setting, p.bpp, p.psnr) for p in points]


# ---- The log ---------------------------------------------------------------------------------------------------------


def add(lines: Sequence[Line]) -> None:
    """To the log, in the order of pixels seen."""
    known = lines_of(LOG) if LOG.exists() else []
    known = [line for line in known if (line.gigapixels, line.what) != (lines[0].gigapixels, lines[0].what)]
    with LOG.open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow([field.name for field in fields(Line)])
        for line in sorted([*known, *lines], key=lambda line: (line.gigapixels, line.what, line.quality)):
            *start, bpp, psnr = astuple(line)
            rows.writerow([*start, f"{bpp:.5f}", f"{psnr:.4f}"])


def lines_of(log: Path) -> list[Line]:
    """What `add` wrote."""
    with log.open(newline="") as f:
        return [
            Line(
                float(row["gigapixels"]),
                float(row["hours"]),
                int(row["ended"]),
                row["what"],
                float(row["quality"]),
                float(row["bpp"]),
                float(row["psnr"]),
            )
            for row in csv.DictReader(f)
        ]


# ---- Table, fit and figure -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stand:
    """Where the training stood: BD-rates in percent, by `ANCHORS`; None without a common PSNR."""

    gigapixels: float
    hours: float
    ended: bool
    what: str
    against: dict[str, float | None]


def stands(lines: Sequence[Line]) -> list[Stand]:
    """One a file of weights."""
    found = []
    for (gigapixels, hours, ended, what), group in groupby(lines, lambda i: (i.gigapixels, i.hours, i.ended, i.what)):
        curve = Curve.of("lichen", [(line.bpp, line.psnr) for line in group])
        against: dict[str, float | None] = {}
        for name in ANCHORS:
            try:
                against[name] = bd_rate(curve, published.curve("kodak", name, "psnr")).value
            except CurveError:
                against[name] = None
        found.append(Stand(gigapixels, hours, bool(ended), what, against))
    return found


def fit(found: Sequence[Stand], anchor: str = "bpg-444-x265") -> tuple[float, float] | None:
    """a, b of BD-rate = a + b log2(gigapixels); None from fewer than three points."""
    pairs = [(math.log2(s.gigapixels), s.against[anchor]) for s in found if s.ended and s.against[anchor] is not None]
    if len(pairs) < 3:
        return None
    x, y = np.array(pairs, np.float64).T
    b, a = np.polyfit(x, y, 1)
    return float(a), float(b)


def table(lines: Sequence[Line]) -> str:
    """Markdown: a line a file of weights, and what the fit says."""
    found = stands(lines)
    rows = [f"| weights | Gpx seen | hours | {' | '.join(f'against {t}, %' for t in ANCHORS.values())} |"]
    rows.append("|---|---|---|" + "---|" * len(ANCHORS))
    for s in found:
        rates = " | ".join("" if v is None else f"{v:+.1f}" for v in (s.against[name] for name in ANCHORS))
        rows.append(f"| {s.what} | {s.gigapixels:.1f} | {s.hours:.1f} | {rates} |")
    if (ab := fit(found)) is not None:
        a, b = ab
        last = [s for s in found if s.ended][-1]
        n = sum(s.ended for s in found)
        now = last.against["bpg-444-x265"] or 0.0
        promised = ", ".join(
            f"{now + b * math.log2(1 + g / last.gigapixels):+.1f} % after {g:g} Gpx more "
            f"({g * 1e9 / PACE / 3600:.1f} hours)"
            for g in (10, 20, 40)
        )
        rows += [
            "",
            f"Least squares over the {n} ends of trainings: BD-rate against BPG in percent = {_formula(a, b)}. "
            f"Each doubling of what was seen was worth {-b:.1f} %. Carried on from where it stands, that "
            f"promises {promised}, where two cores train at {PACE / 1e6:g} Mpx/s; a fit of {n} points knows of "
            "no limit of the network's size.",
        ]
    return "\n".join(rows)


def _formula(a: float, b: float) -> str:
    return f"{a:.1f} {'+' if b > 0 else '-'} {abs(b):.1f} log2(Gpx)"


def draw(lines: Sequence[Line], path: Path) -> None:
    """The points, those of the ends joined by the fit."""
    import matplotlib
    from matplotlib.figure import Figure

    found = stands(lines)
    with matplotlib.rc_context({"svg.hashsalt": "lichen", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for ended, style, label in ((True, "o", "end of a training"), (False, ".", "within one, averaged weights")):
            pairs = [(s.gigapixels, s.against["bpg-444-x265"]) for s in found if s.ended == ended]
            axes.plot(*zip(*pairs, strict=True) if pairs else ([], []), style, label=label)
        if (ab := fit(found)) is not None:
            x = np.geomspace(found[0].gigapixels, 2 * found[-1].gigapixels, 50)
            axes.plot(x, ab[0] + ab[1] * np.log2(x), "--", color="gray", label=_formula(*ab))
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("pixels seen in training, 10^9")
        axes.set_ylabel("BD-rate against BPG on Kodak, %")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    raise SystemExit(main())
