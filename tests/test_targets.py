from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

import lichen
from lichen.errors import TargetError
from lichen.models.base import Model
from lichen.targets import rising

Photo = npt.NDArray[np.uint8]


def psnr(data: bytes, pixels: Photo) -> float:
    return float(10 * np.log10(255**2 / ((np.asarray(lichen.decode(data), float) - pixels) ** 2).mean()))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_bytes_are_met_and_never_exceeded(photo: Photo, share: float) -> None:
    pixels = photo[:256, :256]
    low, high = (len(lichen.encode(pixels, q)) for q in (1, 100))
    n = round(low ** (1 - share) * high**share)
    assert 0.98 * n <= len(lichen.encode(pixels, target_bytes=n)) <= n
    bpp = n * 8 / 256**2
    assert 0.98 * n <= len(lichen.encode(pixels, target_bpp=bpp)) <= n


@pytest.mark.parametrize("goal", [30.0, 34.56, 38])
def test_psnr_is_met(photo: Photo, goal: float) -> None:
    pixels = photo[:256, :256]
    assert abs(psnr(lichen.encode(pixels, target_psnr=goal), pixels) - goal) <= 0.05


def test_what_cannot_be_reached_says_what_can(photo: Photo) -> None:
    pixels = photo[:128, :128]
    smallest, best = lichen.encode(pixels, 1), lichen.encode(pixels, 100)
    with pytest.raises(TargetError, match=r"the smallest file has (\d+) bytes") as e:
        lichen.encode(pixels, target_bytes=len(smallest) // 2)
    assert int(str(e.value).split(" has ")[1].split()[0]) <= len(
        smallest
    )  # at the lowest qualities bytes go up and down
    with pytest.raises(TargetError, match=f"quality 100 has {psnr(best, pixels):.2f} dB"):
        lichen.encode(pixels, target_psnr=60)
    assert len(lichen.encode(pixels, target_bytes=10**7)) == len(best)
    assert len(lichen.encode(pixels, target_psnr=1)) == len(smallest)


def test_targets_that_make_no_sense(photo: Photo, tiny_light: Model) -> None:
    pixels = photo[:64, :64]
    for value in (0, -5, math.inf, math.nan):
        with pytest.raises(TargetError, match="no positive number"):
            lichen.encode(pixels, model=tiny_light, target_bpp=value)
    with pytest.raises(TargetError, match="give one"):
        lichen.encode(pixels, 50, model=tiny_light, target_bytes=100)


@pytest.mark.parametrize(
    "f", [lambda u: u, lambda u: u**3, lambda u: u // 10 * 10, lambda u: math.log(u), lambda u: float(u > 77)]
)
def test_the_search_ends_at_the_right_integer(f: object) -> None:
    assert callable(f)
    for goal in (f(5), f(6) + 1e-9, f(77), f(99), 1e9):
        tries: list[int] = []

        def measure(u: int, tries: list[int] = tries) -> float:
            tries.append(u)
            return float(f(u))

        found = rising(measure, goal, (5, 100), lambda v: False)
        assert found == max(u for u in range(5, 101) if f(u) <= goal)
        assert len(tries) == len(set(tries)) <= 14
        assert all(5 <= u <= 100 for u in tries)
    assert rising(f, f(5) - 1, (5, 100), lambda v: False) is None
