import hashlib

import numpy as np
import pytest
import torch

from lichen.coding.coder import VALUE_MAX, Decoder, Encoder, Meter, code_batch
from lichen.coding.tables import Tables
from lichen.errors import DamagedError, WeightsError
from lichen.priors.gaussian import SCALES, tables


def latents(n: int = 5000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Table indices, and integers drawn from the tables' normals; a few far outside."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, SCALES, n).astype(np.uint16)
    sigma = 0.11 * (256 / 0.11) ** (index / (SCALES - 1))
    values = np.round(rng.normal(0, sigma)).astype(np.int32)
    values[rng.integers(0, n, 20)] = rng.integers(-(2**30), 2**30, 20)
    values[:2] = [-VALUE_MAX, VALUE_MAX]
    return index, values


def test_what_is_written_is_read() -> None:
    index, values = latents()
    encoder = Encoder()
    for i, v in zip(np.array_split(index, 7), np.array_split(values, 7), strict=True):
        encoder.code("y", tables(), i, v)
    data = encoder.finish()
    decoder = Decoder(data)
    read = [decoder.code("y", tables(), i) for i in np.array_split(index, 7)]
    decoder.finish()
    assert np.array_equal(np.concatenate(read), values)


def test_the_words_are_these() -> None:
    index, values = latents()
    encoder = Encoder()
    encoder.code("y", tables(), index, values)
    assert hashlib.sha256(encoder.finish()).hexdigest()[:16] == "cefee20c1189f844"


def test_the_meter_counts_what_the_encoder_writes() -> None:
    index, values = latents()
    encoder, meter = Encoder(), Meter()
    for coder in (encoder, meter):
        coder.code("y", tables(), index, values)
    assert abs(meter.bits["y"] / 8 - len(encoder.finish())) < 0.005 * meter.bits["y"] / 8 + 16


def test_nothing_is_clipped_silently() -> None:
    index = torch.zeros(1, 2, dtype=torch.float64)
    for value in (2.0**30 + 1, float("inf"), float("nan")):
        with pytest.raises(WeightsError, match="blown up"):
            code_batch("y", [Encoder()], tables(), index, torch.tensor([[0.0, value]], dtype=torch.float64))


def test_layers_are_prefixes_of_the_same_stream() -> None:
    index, values = latents()
    batches = list(zip(np.array_split(index, 9), np.array_split(values, 9), strict=True))
    layered, plain = Encoder(), Encoder()
    for k, (i, v) in enumerate(batches):
        for encoder in (layered, plain):
            encoder.code("y", tables(), i, v)
        if k % 3 == 2:
            layered.end_layer()
    data = layered.finish()
    assert data == plain.finish()
    assert plain.ends == []
    assert len(layered.ends) == 3
    assert layered.ends[-1] == len(data)
    for n, end in enumerate(layered.ends, 1):
        decoder = Decoder(data[:end])
        for i, v in batches[: 3 * n]:
            assert np.array_equal(decoder.code("y", tables(), i), v)
        decoder.end_layer()
    with pytest.raises((DamagedError, AssertionError)):  # two words fewer are too few
        short = Decoder(data[: layered.ends[0] - 8])
        for i, v in batches[:3]:
            assert np.array_equal(short.code("y", tables(), i), v)


def test_layers_of_any_length_are_prefixes() -> None:
    index, values = latents()
    pieces = np.random.default_rng(1).integers(0, 12, 150)
    encoder, at = Encoder(), [slice(end - n, end) for n, end in zip(pieces, np.cumsum(pieces), strict=True)]
    for piece in at:
        encoder.code("y", tables(), index[piece], values[piece])
        encoder.end_layer()
    data = encoder.finish()
    for n, end in enumerate(encoder.ends, 1):
        decoder = Decoder(data[:end])
        for piece in at[:n]:
            assert np.array_equal(decoder.code("y", tables(), index[piece]), values[piece])


def test_layers_may_be_empty() -> None:
    encoder = Encoder()
    encoder.end_layer()
    encoder.code("y", tables(), np.zeros(3, np.uint16), np.zeros(3, np.int32))
    encoder.end_layer()
    encoder.end_layer()
    data = encoder.finish()
    assert encoder.ends[0] <= encoder.ends[1] <= encoder.ends[2] == len(data)
    assert Decoder(data[: encoder.ends[1]]).code("y", tables(), np.zeros(3, np.uint16)).tolist() == [0, 0, 0]


def test_an_empty_batch() -> None:
    encoder = Encoder()
    encoder.code("y", tables(), np.zeros(0, np.uint16), np.zeros(0, np.int32))
    assert Decoder(encoder.finish()).code("y", tables(), np.zeros(0, np.uint16)).size == 0


def test_damage_is_damage() -> None:
    index, values = latents()
    encoder = Encoder()
    encoder.code("y", tables(), index, values)
    data = encoder.finish()
    with pytest.raises(DamagedError):
        Decoder(data[:-1])
    rng = np.random.default_rng(1)
    noticed = 0
    for _ in range(200):
        bad = bytearray(data)
        bad[rng.integers(len(bad))] ^= int(rng.integers(1, 256))
        decoder = Decoder(bytes(bad))
        try:
            decoder.code("y", tables(), index)
            decoder.finish()
        except DamagedError:
            noticed += 1
    assert noticed > 100  # the rest is left to the container's checksum


def test_a_stream_that_is_spent_is_noticed_within_the_batch() -> None:
    index, values = latents()
    encoder = Encoder()
    for i, v in zip(np.array_split(index, 50), np.array_split(values, 50), strict=True):
        encoder.code("y", tables(), i, v)
    data = encoder.finish()
    decoder, read = Decoder(data[: len(data) // 2 // 4 * 4]), 0
    with pytest.raises(DamagedError, match="too early"):
        for i in np.array_split(index, 50):
            decoder.code("y", tables(), i)
            read += 1
    assert 22 <= read <= 28
    decoder = Decoder(b"")  # reads as zeros
    assert decoder.code("y", tables(), np.full(1, 40, np.uint16)).shape == (1,)
    with pytest.raises(DamagedError, match="too early"):
        decoder.code("y", tables(), np.full(20, 40, np.uint16))


def test_no_stream_is_taken_for_spent_that_is_not() -> None:
    """Every symbol of frequency 1 to 2^24 - 1, and escapes, in streams of any length."""
    pmfs = [np.array([1 - 2.0**-23]), np.array([0.5, 0.25]), np.full(200, 1 / 256), np.array([1 - 2.0**-20, 2.0**-22])]
    tables, rng = Tables(pmfs, [0, 0, -100, 0]), np.random.default_rng(0)
    for trial in range(2000):
        n = int(rng.integers(0, 40))
        index = np.zeros(n, np.uint16) if trial % 3 == 0 else rng.integers(0, 4, n).astype(np.uint16)
        values = np.where(index == 2, rng.integers(-100, 100, n), 0)
        values = np.where(rng.random(n) < 0.1, rng.integers(-130, 130, n), values).astype(np.int32)
        encoder = Encoder()
        encoder.code("y", tables, index, values)
        decoder = Decoder(encoder.finish())
        assert np.array_equal(decoder.code("y", tables, index), values)
        decoder.finish()
