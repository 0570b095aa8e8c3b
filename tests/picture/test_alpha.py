"""Transparency there and back; broken and hostile masks."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_pictures import (
    CAMERA,
    cutout,
    saved,
    small,
)

from lichen.errors import DamagedError, PictureError
from lichen.picture import (
    to_8_bits,
    to_16_bits,
)
from lichen.picture.alpha import decode_alpha, encode_alpha


def alphas() -> dict[str, np.ndarray[Any, Any]]:
    camera = np.asarray(Image.open(CAMERA))
    rng = np.random.default_rng(0)
    return {
        "matte": camera,
        "binary": np.where(camera > 128, 255, 0).astype(np.uint8),
        "soft": np.asarray(cutout((300, 200)))[..., 3],
        "noise": rng.integers(0, 256, (33, 65), np.uint8),
        "column": rng.integers(0, 256, (5000, 1), np.uint8),
        "row": rng.integers(0, 256, (1, 5000), np.uint8),
        "wider than WebP": np.resize(camera, (3, 20_000)),
        "taller than WebP": np.resize(camera, (20_000, 3)),
        "pixel": np.array([[7]], np.uint8),
        "opaque": np.full((300, 200), 255, np.uint8),
        "strided": camera[::-2, ::3],
        "16 bits": camera.astype(np.uint16) * 257 + rng.integers(0, 257, camera.shape, np.uint16),
        "8 of 16 bits": camera.astype(np.uint16) * 257,
        "opaque in 16 bits": np.full((300, 200), 65535, np.uint16),
        "all equal in 16 bits": np.full((300, 200), 1000, np.uint16),
        "row of 16 bits": rng.integers(0, 65536, (1, 5000), np.uint16),
    }


@pytest.mark.parametrize("name", alphas())
def test_alpha_round_trip(name: str) -> None:
    alpha = alphas()[name]
    found = decode_alpha(encode_alpha(alpha), *alpha.shape, depth=8 * alpha.itemsize)
    assert found.dtype == alpha.dtype
    assert np.array_equal(found, alpha)
    for depth, other in ((8, to_8_bits(alpha)), (16, to_16_bits(alpha))):
        assert np.array_equal(decode_alpha(encode_alpha(alpha), *alpha.shape, depth=depth), other)


def test_alpha_in_several_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = alphas()["matte"]
    monkeypatch.setattr("lichen.picture.alpha._BAND", 512 * 100)
    data = encode_alpha(alpha)
    assert struct.unpack_from(">I", data) == (100,)
    deep = encode_alpha(alphas()["16 bits"])
    assert struct.unpack_from(">I", deep) == (100,)
    monkeypatch.undo()
    assert np.array_equal(decode_alpha(data, 512, 512), alpha)
    assert np.array_equal(decode_alpha(deep, 512, 512, 16), alphas()["16 bits"])


def test_bands_of_both_depths_may_stand_together() -> None:
    deep, eight = np.array([[1000, 2000]], np.uint16), np.array([[3, 4]], np.uint8)
    files = [saved(Image.fromarray(rows)) for rows in (deep, eight)]
    data = struct.pack(">I", 1) + b"".join(struct.pack(">I", len(f)) + f for f in files)
    assert decode_alpha(data, 2, 2, 16).tolist() == [[1000, 2000], [771, 1028]]
    assert decode_alpha(data, 2, 2).tolist() == [[4, 8], [3, 4]]


def test_a_stored_band_of_16_bits() -> None:
    """As it stands in a file since version 1: what is read must not change."""
    data = bytes.fromhex(
        "000000010000004889504e470d0a1a0a0000000d49484452000000030000000110000000006e1b972b"
        "0000000f4944415478da636060607ef1ff3f0005c802ea2d1d38420000000049454e44ae426082"
    )
    assert decode_alpha(data, 1, 3, 16).tolist() == [[0, 1000, 65535]]
    assert decode_alpha(data, 1, 3).tolist() == [[0, 4, 255]]


def test_alpha_without_webp(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = alphas()["matte"]
    monkeypatch.setattr("lichen.picture.alpha.features.check", lambda _: False)
    data = encode_alpha(alpha)
    assert data[8:12] == b"\x89PNG"
    assert np.array_equal(decode_alpha(data, 512, 512), alpha)
    monkeypatch.undo()
    assert np.array_equal(decode_alpha(data, 512, 512), alpha)
    webp = encode_alpha(alpha)
    monkeypatch.setattr("lichen.picture.alpha.features.check", lambda _: False)
    with pytest.raises(PictureError, match="Pillow"):
        decode_alpha(webp, 512, 512)


def test_alpha_is_small() -> None:
    for name in ("matte", "binary", "noise"):
        alpha = alphas()[name]
        assert len(encode_alpha(alpha)) < len(saved(Image.fromarray(alpha), "PNG", optimize=True))
    assert encode_alpha(alphas()["opaque"]) == encode_alpha(alphas()["opaque in 16 bits"]) == b"\xff"
    assert encode_alpha(alphas()["8 of 16 bits"]) == encode_alpha(alphas()["matte"])


def band(data: bytes, rows: int = 40) -> bytes:
    return struct.pack(">II", rows, len(data)) + data


def test_alpha_that_no_writer_writes() -> None:
    good = encode_alpha(np.asarray(small(CAMERA)))
    assert decode_alpha(good, 40, 60).shape == (40, 60)
    webp = {"lossless": True}
    bad = [
        b"",
        b"\0\0",
        good[:-1],
        good + b"\0",
        struct.pack(">I", 0) + good[4:],
        struct.pack(">I", 1) + good[4:],
        band(saved(small(CAMERA), "PNG")[:-300]),
        band(saved(small(CAMERA, (61, 40)), "PNG")),
        band(saved(small(CAMERA).convert("RGB"), "PNG")),
        band(saved(small(CAMERA), "BMP")),
        band(saved(small(CAMERA).convert("RGB"), "WEBP")),
        band(saved(small(CAMERA, (61, 40)).convert("RGB"), "WEBP", **webp)),
        band(saved(cutout(), "WEBP", **webp)),
    ]
    for data in bad:
        with pytest.raises(DamagedError):
            decode_alpha(data, 40, 60)
    for size in ((40, 61), (41, 60), (80, 60), (2**20, 60)):
        with pytest.raises(DamagedError):
            decode_alpha(good, *size)


@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_alpha_bombs(format: str) -> None:
    options = {"lossless": True, "method": 0} if format == "WEBP" else {}
    bomb = saved(Image.new("RGB" if format == "WEBP" else "L", (4000, 4000)), format, **options)
    tracemalloc.start()
    with pytest.raises(DamagedError):
        decode_alpha(band(bomb), 40, 60)
    assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    tracemalloc.stop()


def test_random_alpha_never_fails_otherwise() -> None:
    rng = random.Random(3)
    mask = np.asarray(small(CAMERA))
    deep = encode_alpha(mask.astype(np.uint16) * 250)
    originals = [encode_alpha(mask), band(saved(small(CAMERA), "PNG")), deep]
    for trial in range(3000):
        data = bytearray(originals[trial % 3])
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        with contextlib.suppress(DamagedError):
            assert decode_alpha(bytes(data), 40, 60).shape == (40, 60)
