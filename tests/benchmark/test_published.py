"""Published figures: complete, credited, and giving the BD-rates that others found with them."""

from __future__ import annotations

import pytest

from lichen.benchmark import headlines, published
from lichen.benchmark.bd import bd_rate
from lichen.benchmark.published import PublishedError, curve

LOW, HIGH = 0.08, 2.0

CHECK = {  # Kodak, RGB PSNR: BD-rate against BPG 4:4:4 of two sources, and against VTM
    "joint-neurips18-mse": (-8.1, -9.6, 12.3),
    "joint-compressai-mse": (-9.8, -11.3, 11.0),
    "mean-scale-hyperprior-neurips18-mse": (-2.9, -4.6, 19.2),
    "scale-hyperprior-iclr18-mse": (8.3, 6.5, 31.8),
    "balle2017-mse": (33.3, 31.1, 63.0),
    "lee-iclr19": (-4.7, -6.3, 17.6),
}


@pytest.mark.parametrize("codec", CHECK)
@pytest.mark.parametrize(("column", "anchor"), list(enumerate(["bpg-444", "bpg-444-x265", "vtm"])))
def test_check_table(codec, column, anchor):
    """To 0.2 points; points between 0.08 and 2 bpp, or all of them where that is how the table was made."""
    test, other = curve("kodak", codec), curve("kodak", anchor)
    within = bd_rate(test.between(LOW, HIGH), other.between(LOW, HIGH)).value
    everywhere = bd_rate(test, other).value
    assert min(abs(within - CHECK[codec][column]), abs(everywhere - CHECK[codec][column])) <= 0.2


@pytest.mark.parametrize(
    ("anchor", "saved"),
    [("bpg-444", 8.4), ("scale-hyperprior-iclr18-mse", 15.8), ("jpeg-420", 59.8)],
)
def test_headline_figures(anchor, saved):
    """What the abstract gives to the tenth, within one point: it does not say over which range."""
    test = curve("kodak", headlines.TEST)
    assert -bd_rate(test, curve("kodak", anchor)).value == pytest.approx(saved, abs=1)


@pytest.mark.parametrize("anchor", ["webp-tfc", "jpeg2000-kakadu"])
def test_headline_bounds(anchor):
    assert -bd_rate(curve("kodak", headlines.TEST), curve("kodak", anchor)).value > 35


def test_the_headline_table_names_every_anchor():
    text = headlines.table()
    assert all(anchor in text for anchor, _ in headlines.HEADLINES)


def test_every_codec_is_credited():
    for dataset in ("kodak", "tecnick"):
        assert published.codecs(dataset)
        for codec in published.codecs(dataset):
            about = published.about(codec)
            assert about.title and about.citation and about.source.url.startswith("https://")


def test_points_are_plausible_and_rise():
    for dataset in ("kodak", "tecnick"):
        for codec in published.codecs(dataset):
            points = published.points(dataset, codec)
            assert all(0 < p.bpp < 30 and 15 < p.psnr < 70 for p in points)
            assert all(p.ms_ssim is None or 0.4 < p.ms_ssim < 1 for p in points)
            assert [p.bpp for p in points] == sorted(p.bpp for p in points)


def test_curves_are_marked_published():
    assert curve("kodak", "vtm").published
    assert curve("kodak", "jpeg-420", "ms-ssim").quality[0] < 15  # dB, not 0..1


def test_unknown_ones_are_refused():
    with pytest.raises(PublishedError, match="no published figures"):
        curve("kodak", "nobody")
    with pytest.raises(PublishedError, match="no metric"):
        curve("kodak", "vtm", "vmaf")
    with pytest.raises(PublishedError, match="no published codec"):
        published.about("nobody")
