"""BD-rates: against the package `bjontegaard`, against cases with a known answer, and what is refused."""

from __future__ import annotations

import math

import pytest

from lichen.benchmark.bd import BDRate, Curve, CurveError, bd_psnr, bd_rate

ANCHOR = Curve.of("anchor", [(0.1, 27.0), (0.25, 30.1), (0.5, 32.9), (1.0, 36.2), (1.9, 40.3)])
TEST = Curve.of("test", [(0.09, 27.9), (0.2, 30.6), (0.45, 33.8), (0.95, 37.5)])


def test_a_curve_against_itself_is_no_distance():
    assert bd_rate(ANCHOR, ANCHOR).value == pytest.approx(0, abs=1e-12)
    assert bd_psnr(ANCHOR, ANCHOR).value == pytest.approx(0, abs=1e-12)


def test_ten_percent_less_rate_everywhere_is_minus_ten_percent():
    test = Curve.of("test", [(0.9 * r, q) for r, q in zip(ANCHOR.bpp, ANCHOR.quality, strict=True)])
    delta = bd_rate(test, ANCHOR)
    assert delta.value == pytest.approx(-10)
    assert (delta.low, delta.high) == (27.0, 40.3)


def test_half_a_decibel_everywhere():
    test = Curve.of("test", [(r, q + 0.5) for r, q in zip(ANCHOR.bpp, ANCHOR.quality, strict=True)])
    delta = bd_psnr(test, ANCHOR)
    assert delta.value == pytest.approx(0.5)
    assert (delta.low, delta.high) == pytest.approx((0.1, 1.9))


def test_swapping_the_curves_inverts_the_ratio():
    there, back = bd_rate(TEST, ANCHOR), bd_rate(ANCHOR, TEST)
    assert (1 + there.value / 100) * (1 + back.value / 100) == pytest.approx(1)
    assert bd_psnr(TEST, ANCHOR).value == pytest.approx(-bd_psnr(ANCHOR, TEST).value)


def test_the_package_bjontegaard_agrees():
    bjontegaard = pytest.importorskip("bjontegaard")
    arguments = (ANCHOR.bpp, ANCHOR.quality, TEST.bpp, TEST.quality)
    options = {"method": "pchip", "require_matching_points": False, "min_overlap": 0}
    assert bd_rate(TEST, ANCHOR).value == pytest.approx(bjontegaard.bd_rate(*arguments, **options), abs=1e-9)
    assert bd_psnr(TEST, ANCHOR).value == pytest.approx(bjontegaard.bd_psnr(*arguments, **options), abs=1e-9)


def test_the_overlap_is_part_of_the_result():
    assert str(BDRate(-8.123, 27.9, 37.5)) == "-8.1 % over 27.90 to 37.50 dB"
    delta = bd_rate(TEST, ANCHOR)
    assert (delta.low, delta.high) == (27.9, 37.5)


@pytest.mark.parametrize(
    ("points", "word"),
    [
        ([(0.1, 30.0), (0.2, 31.0), (0.3, 32.0)], "3 points"),
        ([(0.1, 30.0), (0.2, 31.0), (0.3, 30.5), (0.4, 33.0)], "does not rise"),
        ([(0.1, 30.0), (0.2, 31.0), (0.2, 31.5), (0.4, 33.0)], "does not rise"),
        ([(0.1, 30.0), (0.2, 31.0), (0.3, 32.0), (0.4, math.inf)], "not finite"),
        ([(0.0, 29.0), (0.2, 31.0), (0.3, 32.0), (0.4, 33.0)], "no rate"),
        ([(0.1, 50.0), (0.2, 51.0), (0.3, 52.0), (0.4, 53.0)], "no quality in common"),
    ],
)
def test_curves_that_say_nothing_are_refused(points, word):
    with pytest.raises(CurveError, match=word):
        bd_rate(Curve.of("odd", points), ANCHOR)


def test_rates_apart_have_no_bd_psnr():
    with pytest.raises(CurveError, match="no rate in common"):
        bd_psnr(Curve.of("far", [(5.0, 30.0), (6.0, 31.0), (7.0, 32.0), (8.0, 33.0)]), ANCHOR)


def test_between_keeps_what_a_curve_is():
    part = Curve.of("p", zip(ANCHOR.bpp, ANCHOR.quality, strict=True), published=True).between(0.2, 1.0)
    assert part.bpp == (0.25, 0.5, 1.0)
    assert part.title == "p (published)"
