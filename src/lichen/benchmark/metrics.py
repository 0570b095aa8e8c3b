"""Rate and distortion of one picture. Pictures are uint8 arrays (H, W, 3), as a file's reader gets them."""

from __future__ import annotations

import math

import numpy as np

from lichen.errors import LichenError
from lichen.picture import Pixels

MS_SSIM_SIDE = 161
"""The shortest side that MS-SSIM takes, in pixels: its window of 11 must fit the picture at a sixteenth of the size."""


class MetricError(LichenError):
    """Pictures that cannot be compared, or a metric whose package is missing."""


def bpp(data: bytes | int, picture: Pixels) -> float:
    """Bits per pixel: all bytes of a file (or their number) over the picture's pixels."""
    size = data if isinstance(data, int) else len(data)
    height, width = picture.shape[:2]
    return 8 * size / (int(height) * int(width))


def psnr(picture: Pixels, decoded: Pixels) -> float:
    """PSNR in dB over all samples of R, G and B, peak 255; infinite for equal pictures. MetricError for other sizes."""
    _check(picture, decoded)
    difference = picture.astype(np.int32) - decoded
    squares = int(np.einsum("ijk,ijk->", difference, difference, dtype=np.int64))
    return 10 * math.log10(255**2 * picture.size / squares) if squares else math.inf


def psnr_ycbcr(picture: Pixels, decoded: Pixels) -> tuple[float, float]:
    """PSNR in dB of Y alone, and the weighted mean (6 Y + Cb + Cr) / 8 of the planes' PSNR ("YUV 6:1:1").

    ITU-R BT.601 over the full range, not rounded, chroma at full size, peak 255. Infinite where nothing differs.
    """
    _check(picture, decoded)
    r, g, b = (picture.astype(np.float64) - decoded).transpose(2, 0, 1)  # the conversion is linear
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = (y, (b - y) / 1.772, (r - y) / 1.402)
    of = [10 * math.log10(255**2 / error) if (error := float(np.mean(p * p))) else math.inf for p in planes]
    return of[0], (6 * of[0] + of[1] + of[2]) / 8


def ms_ssim(picture: Pixels, decoded: Pixels) -> float:
    """MS-SSIM, 0..1, the mean over R, G and B, peak 255 (Wang, Simoncelli, Bovik 2003; package `pytorch-msssim`).

    Computed in float64. MetricError for other sizes, for pictures with a side below 161 pixels, and where the package
    is missing.
    """
    _check(picture, decoded)
    if min(picture.shape[:2]) < MS_SSIM_SIDE:
        raise MetricError(
            f"MS-SSIM needs {MS_SSIM_SIDE} pixels to each side and the picture has "
            f"{picture.shape[1]}x{picture.shape[0]}: leave the picture out, or MS-SSIM (--no-ms-ssim)"
        )
    try:
        import pytorch_msssim
    except ImportError as e:
        raise MetricError("MS-SSIM needs the package pytorch-msssim: pip install 'lichen[benchmark]'") from e
    import torch

    with torch.inference_mode():
        x, x_hat = (torch.from_numpy(p.transpose(2, 0, 1)[None].astype(np.float64)) for p in (picture, decoded))
        return float(pytorch_msssim.ms_ssim(x, x_hat, data_range=255.0))


def takes_ms_ssim(width: int, height: int) -> bool:
    """Whether a picture is large enough for its five scales."""
    return min(width, height) >= MS_SSIM_SIDE


def decibels(ms_ssim: float) -> float:
    """MS-SSIM in dB, -10 log10(1 - MS-SSIM); infinite for 1."""
    return -10 * math.log10(1 - ms_ssim) if ms_ssim < 1 else math.inf


def _check(picture: Pixels, decoded: Pixels) -> None:
    for p in (picture, decoded):
        if p.dtype != np.uint8 or p.ndim != 3 or p.shape[2] != 3:
            raise MetricError(f"pictures are uint8 arrays (H, W, 3), not {p.dtype} {p.shape}")
    if picture.shape != decoded.shape:
        raise MetricError(f"the decoded picture has the shape {decoded.shape}, the original {picture.shape}")
