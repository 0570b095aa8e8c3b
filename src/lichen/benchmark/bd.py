"""BD-rate and BD-PSNR: the mean distance between two rate-distortion curves.

G. Bjontegaard, "Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001; with the piecewise cubic
interpolation (PCHIP, Fritsch and Carlson 1980) of JCTVC-L1100 in place of one cubic polynomial, which oscillates with
more than four points. Rates enter as logarithms; the mean is the exact integral over the full range where both curves
are defined, and that range is part of the result.

scipy's interpolator is used directly. The package `bjontegaard` integrates the same one in the same way (the tests
compare the two), but keeps the range to itself, gives NaN and a warning where curves do not meet, takes curves that
fall, and needs matplotlib to be imported.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lichen.errors import LichenError

MIN_POINTS = 4
"""Points a curve needs, as in the common test conditions of video coding: fewer say nothing about its shape."""


class CurveError(LichenError):
    """Rate-distortion curves that cannot be compared."""


@dataclass(frozen=True)
class Curve:
    """A codec's averages over a set of pictures, by increasing rate."""

    label: str
    bpp: tuple[float, ...]  # bits per pixel
    quality: tuple[float, ...]  # dB: PSNR, or -10 log10(1 - MS-SSIM)
    published: bool = False  # a figure of a publication, not measured here

    @classmethod
    def of(cls, label: str, points: Iterable[tuple[float, float]], *, published: bool = False) -> Curve:
        """From points (bpp, dB) in any order."""
        ordered = sorted(points)
        return cls(label, tuple(r for r, _ in ordered), tuple(q for _, q in ordered), published)

    def between(self, low: float, high: float) -> Curve:
        """The points with low <= bpp <= high."""
        points = [(r, q) for r, q in zip(self.bpp, self.quality, strict=True) if low <= r <= high]
        return Curve.of(self.label, points, published=self.published)

    @property
    def title(self) -> str:
        """The label, marked where it is a published curve."""
        return f"{self.label} (published)" if self.published else self.label


@dataclass(frozen=True)
class Delta:
    """A mean distance and the range, `low` to `high`, over which it was taken."""

    value: float
    low: float
    high: float


class BDRate(Delta):
    """`value` in percent of the anchor's rate, negative where the test needs less; `low` and `high` in dB."""

    def __str__(self) -> str:
        return f"{self.value:+.1f} % over {self.low:.2f} to {self.high:.2f} dB"


class BDPSNR(Delta):
    """`value` in dB, positive where the test is better; `low` and `high` in bits per pixel."""

    def __str__(self) -> str:
        return f"{self.value:+.2f} dB over {self.low:.3f} to {self.high:.3f} bpp"


def bd_rate(test: Curve, anchor: Curve) -> BDRate:
    """How much more rate `test` needs than `anchor` for the same quality, on average over the qualities of both.

    Raises CurveError where the curves share no range of quality, have fewer than 4 points, or do not rise.
    """
    _check(test, anchor)
    mean, low, high = _mean_difference(test.quality, _logs(test), anchor.quality, _logs(anchor))
    if not low < high:
        raise _apart(test, anchor, "quality", "dB", test.quality, anchor.quality)
    return BDRate(100 * math.expm1(mean), low, high)


def bd_psnr(test: Curve, anchor: Curve) -> BDPSNR:
    """How much better `test` is than `anchor` at the same rate, on average over the logarithms of the rates of both.

    The unit is the curves': dB of PSNR or of MS-SSIM. Raises CurveError as `bd_rate`.
    """
    _check(test, anchor)
    mean, low, high = _mean_difference(_logs(test), test.quality, _logs(anchor), anchor.quality)
    if not low < high:
        raise _apart(test, anchor, "rate", "bpp", test.bpp, anchor.bpp)
    return BDPSNR(mean, math.exp(low), math.exp(high))


def _mean_difference(
    x: Sequence[float], y: Sequence[float], x_anchor: Sequence[float], y_anchor: Sequence[float]
) -> tuple[float, float, float]:
    """Mean of y(x) - y_anchor(x) over the x of both, and the range; NaN where it is empty."""
    from scipy.interpolate import PchipInterpolator

    low, high = max(x[0], x_anchor[0]), min(x[-1], x_anchor[-1])
    if not low < high:
        return math.nan, low, high
    areas = [float(PchipInterpolator(a, b).integrate(low, high)) for a, b in ((x, y), (x_anchor, y_anchor))]
    return (areas[0] - areas[1]) / (high - low), low, high


def _logs(curve: Curve) -> list[float]:
    return [math.log(r) for r in curve.bpp]


def _check(*curves: Curve) -> None:
    for c in curves:
        if len(c.bpp) != len(c.quality):
            raise CurveError(f"{c.title} has {len(c.bpp)} rates and {len(c.quality)} qualities: give pairs")
        if len(c.bpp) < MIN_POINTS:
            raise CurveError(f"{c.title} has {len(c.bpp)} points and needs {MIN_POINTS}: measure more settings")
        if not all(math.isfinite(v) for v in (*c.bpp, *c.quality)) or c.bpp[0] <= 0:
            raise CurveError(f"{c.title} has points that are not finite or of no rate: leave lossless settings out")
        points = list(zip(c.bpp, c.quality, strict=True))
        for (r0, q0), (r1, q1) in itertools.pairwise(points):
            if r0 >= r1 or q0 >= q1:
                raise CurveError(
                    f"{c.title} does not rise: {q0:.3f} dB at {r0:.4f} bpp is followed by {q1:.3f} dB at {r1:.4f} bpp; "
                    "leave one of the two out"
                )


def _apart(
    test: Curve, anchor: Curve, what: str, unit: str, of_test: Sequence[float], of_anchor: Sequence[float]
) -> CurveError:
    return CurveError(
        f"{test.title} and {anchor.title} have no {what} in common: {of_test[0]:.3f} to {of_test[-1]:.3f} {unit} "
        f"against {of_anchor[0]:.3f} to {of_anchor[-1]:.3f} {unit}; measure settings nearer to each other"
    )
