import constriction
import numpy as np
import pytest
import torch

from lichen.coding.categorical import code_each, softmax_frequencies
from lichen.coding.coder import Decoder, Encoder, Meter, code_batch
from lichen.coding.tables import PRECISION, Tables
from lichen.errors import DamagedError


def logits(n: int, L: int = 6, spread: float = 4.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(n, L, generator=generator, dtype=torch.float64)).clamp(min=0)


def test_frequencies_are_the_softmax() -> None:
    x = logits(500)
    k = softmax_frequencies(x.numpy())
    assert np.array_equal(k, np.rint(k))
    assert k.min() >= 1
    assert (k.sum(1) == 2**PRECISION).all()
    assert np.abs(k / 2**PRECISION - x.softmax(1).numpy()).max() < 6 / 2**PRECISION


@pytest.mark.parametrize(
    "row", [[0.0] * 6, [0.0, 8000.0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 40.0], [9.0, 9, 0, 0, 0, 0], [1.5]]
)
def test_frequencies_at_the_extremes(row: list[float]) -> None:
    k = softmax_frequencies(np.array([row]))
    assert k.min() >= 1
    assert k.sum() == 2**PRECISION


def test_constriction_uses_our_integers_to_the_unit() -> None:
    model = constriction.stream.model.Categorical(perfect=False)
    x = np.concatenate([logits(50).numpy(), [[0, 0, 99.0, 0, 0, 0]], [[0, 0, 0, 0, 0, 99.0]], [[99.0, 0, 0, 0, 0, 0]]])
    for k in softmax_frequencies(x):
        edges = np.concatenate([[0], np.cumsum(k)]).astype(int)
        for symbol in range(6):
            for quantile in (edges[symbol], edges[symbol + 1] - 1):
                point = int(quantile) * ((2**64 - 1) >> PRECISION)
                words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
                decoder = constriction.stream.queue.RangeDecoder(words)
                assert int(decoder.decode(model, k[None] - 1)[0]) == symbol


def test_two_pictures_with_other_symbols_between() -> None:
    """Batches by table and batches of `code_each` keep their order, for each picture as if it were alone."""
    x = logits(400)
    values = torch.distributions.Categorical(logits=x).sample()
    tables = Tables([np.full(4, 0.2)], [0])

    def walk(coders: list[Encoder] | list[Decoder] | list[Meter], rows: torch.Tensor, write: bool) -> torch.Tensor:
        found = []
        for part in rows.view(len(coders), 4, 50).unbind(1):
            at = part.flatten()
            found.append(code_each("y", coders, x[at], values[at] if write else None))
            between = torch.arange(5.0).repeat(len(coders))  # 4 is an escape
            code_batch("z", coders, tables, torch.zeros_like(between), between if write else None)
        return torch.stack(found)

    encoders, meters = [Encoder(), Encoder()], [Meter(), Meter()]
    rows = torch.arange(400)
    written = walk(encoders, rows, True)
    walk(meters, rows, True)
    streams = [e.finish() for e in encoders]
    decoders = [Decoder(s) for s in streams]
    assert torch.equal(walk(decoders, rows, False), written)
    for b, decoder in enumerate(decoders):
        decoder.finish()
        alone = Encoder()
        half = torch.arange(400).view(2, 200)[b]
        walk([alone], half, True)
        code_each("y", [alone], x[:0], values[:0])
        assert alone.finish() == streams[b]
        true = -x.log_softmax(1)[half, values[half]].sum() / np.log(2)
        assert abs(meters[b].bits["y"] / float(true) - 1) < 1e-4
        assert abs(sum(meters[b].bits.values()) / 8 - len(streams[b])) < 8


def test_junk_gives_symbols_or_is_damaged() -> None:
    x, rng, damaged = logits(20), np.random.default_rng(0), 0
    for data in [b"\xff" * 64, b"\xff" * 8, *(rng.bytes(64) for _ in range(20))]:
        decoder = Decoder(data)
        try:
            found = code_each("y", [decoder], x, None)
            assert 0 <= int(found.min()) <= int(found.max()) < 6
            decoder.finish()
        except DamagedError:
            damaged += 1
    assert damaged == 22


def test_a_stream_that_is_spent_is_noticed() -> None:
    x = logits(400)
    code_each("y", [Decoder(b"")], x[:1], None)
    for data in (b"", bytes(8)):
        with pytest.raises(DamagedError, match="too early"):
            code_each("y", [Decoder(data)], x, None)
