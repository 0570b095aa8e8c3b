"""Rate and distortion against hand-made cases and a second implementation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lichen.benchmark import metrics
from lichen.benchmark.metrics import MetricError


def shifted(photo, by):
    return np.clip(photo.astype(np.int16) + by, 0, 255).astype(np.uint8)


def test_bpp_counts_all_bytes(photo):
    assert metrics.bpp(b"x" * 512 * 64, photo) == 1.0
    assert metrics.bpp(512 * 512, photo) == 8.0


def test_psnr_of_a_constant_error():
    picture = np.full((8, 8, 3), 100, np.uint8)
    assert metrics.psnr(picture, picture + np.uint8(5)) == pytest.approx(20 * math.log10(255 / 5))
    assert metrics.psnr(picture, picture) == math.inf


def test_psnr_against_scikit_image(photo):
    from skimage.metrics import peak_signal_noise_ratio

    other = shifted(photo, np.random.default_rng(0).integers(-9, 10, photo.shape))
    assert metrics.psnr(photo, other) == pytest.approx(peak_signal_noise_ratio(photo, other, data_range=255))


def test_psnr_of_luma_and_of_weighted_planes():
    """The same error in R, G and B is one of Y alone; one of B alone is mostly one of Cb."""
    picture = np.full((8, 8, 3), 100, np.uint8)
    y, yuv = metrics.psnr_ycbcr(picture, picture + np.uint8(5))
    assert y == pytest.approx(20 * math.log10(255 / 5))
    assert yuv > 150  # chroma lost nothing but what floating point does
    blue = picture.copy()
    blue[..., 2] += 10
    errors = (1.14, (10 - 1.14) / 1.772, -1.14 / 1.402)
    planes = [20 * math.log10(255 / abs(e)) for e in errors]
    y, yuv = metrics.psnr_ycbcr(picture, blue)
    assert y == pytest.approx(planes[0])
    assert yuv == pytest.approx((6 * planes[0] + planes[1] + planes[2]) / 8)


def test_ms_ssim_falls_with_the_error(photo):
    pytest.importorskip("pytorch_msssim")
    rng = np.random.default_rng(0)
    values = [metrics.ms_ssim(photo, shifted(photo, rng.integers(-n, n + 1, photo.shape))) for n in (0, 5, 40)]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2] > 0.5


def test_ms_ssim_needs_161_pixels(photo):
    with pytest.raises(MetricError, match="161"):
        metrics.ms_ssim(photo[:160], photo[:160])


def test_decibels():
    assert metrics.decibels(0.99) == pytest.approx(20)
    assert metrics.decibels(1.0) == math.inf


def test_other_sizes_and_types_are_refused(photo):
    with pytest.raises(MetricError, match="shape"):
        metrics.psnr(photo, photo[:-1])
    with pytest.raises(MetricError, match="uint8"):
        metrics.psnr(photo, photo.astype(np.float32))
