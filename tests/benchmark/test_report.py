"""Averages, comparisons over the pictures in common, and tables."""

from __future__ import annotations

import dataclasses
import math

import made_up
import pytest

from lichen.benchmark import analyses, figures, report
from lichen.benchmark.bd import CurveError
from lichen.benchmark.report import Study


def test_averages_are_means_over_pictures():
    rows = [r for r in made_up.rows() if r.codec == "webp"]
    points = report.averages(rows)["webp"]
    assert [p.setting for p in points] == list(made_up.SETTINGS)
    assert points[0].pictures == 24
    first = [r.psnr for r in rows if r.setting == 10.0]
    assert points[0].psnr == pytest.approx(sum(first) / 24)
    assert points[0].encode_s == pytest.approx(0.075)  # of those that were timed
    assert points[2].encode_mb == 12.0 and points[0].encode_mb is None


def test_other_pictures_at_other_settings_are_no_curve():
    rows = [r for r in made_up.rows() if r.codec == "webp"][:-1]
    with pytest.raises(CurveError, match="not measured on the same pictures"):
        report.averages(rows)


def test_known_distances():
    study = made_up.study()
    for metric in report.METRICS:
        assert study.compare("webp", "jpeg-420", metric).rate.value == pytest.approx(-25)
        assert study.compare("lichen", "jpeg-420", metric).pictures == 24


def test_a_codec_on_some_pictures_is_compared_on_those():
    rows = [r for r in made_up.rows() if r.codec != "lichen" or int(r.pixels, 16) % 3 == 0]
    worse = [dataclasses.replace(r, bpp=9 * r.bpp) if r.codec == "webp" and int(r.pixels, 16) % 3 else r for r in rows]
    study = Study("kodak", worse)
    distance = study.compare("lichen", "webp")
    assert distance.pictures == 8 and distance.rate.value == pytest.approx(100 * (0.5 / 0.75 - 1))
    with pytest.raises(CurveError, match="8 pictures, and the published average is over 24"):
        study.compare("lichen", "vtm (published)")
    assert study.compare("webp", "vtm (published)").pictures == 24
    (line,) = [i for i in report.markdown([study], ["webp"]).splitlines() if i.startswith("| lichen | -")]
    assert line.count(" dB, 8 pictures)") == 2


def test_of_several_versions_the_last_one_counts():
    old = [dataclasses.replace(r, version="old", bpp=9 * r.bpp) for r in made_up.rows() if r.codec == "webp"]
    study = Study("kodak", [*old, *made_up.rows()])
    assert study.versions["webp"] == "webp 1.0" and study.points("webp")[0].pictures == 24
    assert study.compare("webp", "jpeg-420").rate.value == pytest.approx(-25)


def test_settings_that_failed_somewhere_are_left_out_and_named():
    study = Study("kodak", made_up.rows()[:-1])
    assert len(study.points("lichen")) == 4
    assert study.notes == ["kodak: lichen at 90 was measured on 23 of 24 pictures and is left out."]


def test_lossless_points_are_on_no_curve():
    rows = [dataclasses.replace(r, psnr=math.inf) if r.setting == 90 else r for r in made_up.rows()]
    assert len(Study("kodak", rows).curve("webp").bpp) == 4


def test_tables_fit_80_columns_and_say_the_overlap():
    study = made_up.study()
    text = report.comparison_table(study, "jpeg-420")
    assert "-50.0 %" in text and max(map(len, text.splitlines())) <= 80
    text = report.bd_table(study.curve("webp"), [study.curve("jpeg-420"), study.curve("vtm (published)")])
    assert "-25.0" in text and "vtm (published)" in text


def test_markdown_has_a_table_an_anchor():
    text = report.markdown([made_up.study()], ["jpeg-420", "bpg-444-x265 (published)", "nobody"])
    assert "BD-rate against jpeg-420" in text and "BD-rate against bpg-444-x265 (published)" in text
    assert "| webp | -25.0 % (" in text and "nobody" not in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| webp | -25")}
    assert widths == {4}


def test_analyses():
    own = {"lichen": analyses.Weights("light", "MSE"), "webp": analyses.Weights("light", "MS-SSIM")}
    cross, priors = analyses.tables([made_up.study()], own)
    by_name = {r[0]: r for r in cross.rows}
    mse, ssim = (by_name[f"joint-compressai-{loss} (published)"] for loss in ("mse", "msssim"))

    def value(cell):
        return float(cell.split()[0])

    assert value(mse[2]) < value(ssim[2]) and value(mse[3]) > value(ssim[3])  # each is best at what it was trained for
    assert (by_name["lichen"][1], by_name["webp"][1]) == ("MSE", "MS-SSIM") and "jpeg-420" not in by_name
    rates = [value(r[1]) for r in priors.rows if r[1] != "-"]
    assert priors.rows[-1][0] == "lichen" and value(priors.rows[-1][3])
    assert len(priors.rows) == len(analyses.PRIORS) + 1
    named = analyses.ablation(made_up.study(), {"lichen": analyses.Weights("minnen2018-joint", "MSE")})
    assert [r[3] for r in named.rows][-1] == priors.rows[-1][3] and len(named.rows) == len(analyses.PRIORS)
    assert rates == sorted(rates, reverse=True)
    assert analyses.tables([made_up.study(name="mine")], {}) == []


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_still_curves(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"curves.{suffix}"
    assert figures.draw(made_up.study(), path, "psnr", ["vtm"])
    data = path.read_bytes()
    assert data[:4] == b"\x89PNG" if suffix == "png" else b"vtm (published)" in data
    assert not figures.draw(Study("mine", []), tmp_path / "none.png")
    few = [r for r in made_up.rows() if int(r.pixels, 16) % 3 == 0]
    assert figures.draw(Study("kodak", few), path, "psnr", ["vtm"])
    assert b"vtm (published)" not in path.read_bytes()  # of all pictures
    assert not Study("kodak", few).whole and made_up.study().whole
