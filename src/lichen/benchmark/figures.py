"""Rate-distortion curves as still pictures, PNG or SVG, for a README or a paper."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lichen.benchmark.bd import Curve, CurveError
from lichen.benchmark.report import METRICS, PUBLISHED, Study, lichen_first
from lichen.errors import LichenError

COLOURS = (
    *("#1f7a4d", "#2f6fd0", "#d1602a", "#8a4fc9", "#b8336a", "#927400"),
    *("#0d8ba1", "#5f6a65", "#6a9a1f", "#c93636", "#5a54d6", "#94643c"),
)


def draw(study: Study, path: str | Path, metric: str = "psnr", published: Sequence[str] = ()) -> bool:
    """Write the measured curves and some published ones, dashed; the suffix says the format. False without curves.

    Published ones are left out where not all pictures of the set were measured.
    LichenError where matplotlib is missing.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as e:
        raise LichenError("still pictures need matplotlib: pip install 'lichen[benchmark]'") from e
    with matplotlib.rc_context({"svg.hashsalt": "lichen", "svg.fonttype": "none", "font.size": 9}):
        figure: Any = Figure(figsize=(7.2, 4.6), dpi=160, layout="constrained")
        axes = figure.add_subplot()
        drawn = 0
        others = [p + PUBLISHED for p in published if study.whole and p + PUBLISHED in study.published]
        measured: list[Curve] = []
        for codec in (*lichen_first(study.codecs), *others):
            try:
                c = study.curve(codec, metric)
            except CurveError:
                continue
            if not c.bpp:
                continue
            style: dict[str, Any] = {"lw": 1.0, "ls": "--"} if c.published else {"lw": 1.6, "marker": "o", "ms": 3}
            if codec.startswith("lichen"):
                style["lw"] = 2.4
            axes.plot(c.bpp, c.quality, label=c.title, color=COLOURS[drawn % len(COLOURS)], **style)
            drawn += 1
            measured += [] if c.published else [c]
        if not drawn:
            return False
        axes.set(xlabel="bits per pixel", ylabel=METRICS[metric], title=f"{study.name}, {study.pictures} pictures")
        if measured:  # published ones may go far beyond
            for limits, values in (
                (axes.set_xlim, [c.bpp for c in measured]),
                (axes.set_ylim, [c.quality for c in measured]),
            ):
                low, high = min(map(min, values)), max(map(max, values))
                limits(low - 0.03 * (high - low), high + 0.03 * (high - low))
        axes.grid(color="#e5e5e5", lw=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7.5)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)
    return True
