"""Measurements that nobody made, for tests of what is done with them."""

from __future__ import annotations

import numpy as np

from lichen.benchmark.report import Study
from lichen.benchmark.store import Row

CODECS = {"jpeg-420": 1.0, "webp": 0.75, "lichen": 0.5}  # rate for the same quality
SETTINGS = (10.0, 30.0, 50.0, 70.0, 90.0)


def rows(pictures: int = 24, names: str = "kodim{:02}.png") -> list[Row]:
    """Curves of one shape, `CODECS` apart in rate."""
    rng = np.random.default_rng(0)
    level = rng.normal(0, 1, pictures)
    found = []
    for i in range(pictures):
        for codec, factor in CODECS.items():
            for k, setting in enumerate(SETTINGS):
                rate = 0.15 * 2.0**k
                psnr = 28 + 3 * k + float(level[i])
                found.append(
                    Row(
                        codec=codec,
                        version=f"{codec} 1.0",
                        setting=setting,
                        image=names.format(i + 1),
                        pixels=f"{i:016x}",
                        width=768,
                        height=512,
                        bytes=round(rate * factor * 768 * 512 / 8),
                        bpp=rate * factor,
                        psnr=psnr,
                        ms_ssim=1 - 10 ** (-(psnr - 18) / 10),
                        encode_s=0.1 * factor + 0.01 * k if i < 2 else None,
                        decode_s=0.02 / factor if i < 2 else None,
                        machine="made up",
                        repeats=3 if i < 2 else 0,
                        psnr_y=psnr + 1,
                        psnr_yuv=psnr + 2,
                        encode_mb=12.0 if i == 0 and k == 2 else None,
                        decode_mb=5.0 if i == 0 and k == 2 else None,
                    )
                )
    return found


def study(pictures: int = 24, name: str = "kodak") -> Study:
    """Of all of them."""
    return Study(name, rows(pictures))
