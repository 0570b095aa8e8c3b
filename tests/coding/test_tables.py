import constriction
import numpy as np
import pytest

from lichen.coding.tables import PRECISION, Tables, integer_frequencies


def probe(model: object, quantile: int) -> int:
    """The symbol that constriction finds at a quantile of 2^24: read straight from a coder's first words."""
    point = quantile * ((2**64 - 1) >> PRECISION)
    words = np.array([point >> 32, point & 0xFFFFFFFF], np.uint32)
    return int(constriction.stream.queue.RangeDecoder(words).decode(model))


def test_constriction_uses_our_integers_to_the_unit() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 17, 200):
        tables = Tables([rng.dirichlet(np.full(n, 0.1)) * 0.999], [-1])
        edges = np.concatenate([[0], np.cumsum(tables.frequencies[0])])
        for symbol in range(n + 1):
            assert probe(tables.models[0], int(edges[symbol])) == symbol
            assert probe(tables.models[0], int(edges[symbol + 1]) - 1) == symbol


def test_frequencies_are_positive_and_complete() -> None:
    for p in (np.array([1.0, 0.0, 0.0]), np.array([1e-30] * 5), np.full(1000, 1e-3)):
        k = integer_frequencies(p)
        assert k.min() >= 1
        assert k.sum() == 2**PRECISION


def test_too_much_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        integer_frequencies(np.array([1.0, 1.0]))
