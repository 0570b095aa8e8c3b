from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lichen.coding.coder import Decoder, Encoder, Meter
from lichen.errors import DamagedError
from lichen.priors.binary import (
    LOG_ODDS_MAX,
    LOG_ODDS_STEP,
    SLOPE,
    TAPS,
    BinaryPrior,
    RowLSTM,
    causal_window,
    code_length,
    tables,
)
from lichen.priors.context import causal_taps, wavefronts

BITS = 3

WINDOW = tuple(causal_taps(SLOPE, 7))


def prior(layers: int = 3, seed: int = 0) -> BinaryPrior:
    """One that is sure of many bits."""
    torch.manual_seed(seed)
    p = BinaryPrior(layers, BITS, 8)
    with torch.no_grad():
        for predictor in p.predictors:
            predictor.rows.sums.weight.mul_(3.0)
            predictor.out[-1].weight.mul_(10.0)
    return p.eval()


def bits(B: int, h: int, w: int, layers: int = 3, seed: int = 1) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.where(torch.rand(B, h, w, layers * BITS, generator=g) < 0.4, -1.0, 1.0)


def test_the_window_is_what_comes_before() -> None:
    assert len(TAPS) == 24
    x = torch.arange(1.0, 1 + 2 * 6 * 8 * 2).view(2, 6, 8, 2)
    window = causal_window(x).unflatten(-1, (24, 2))
    for i, j in ((0, 0), (3, 4), (5, 7), (2, 0)):
        for t, (di, dj) in enumerate(TAPS):
            inside = i + di >= 0 and 0 <= j + dj < 8
            assert torch.equal(window[1, i, j, t], x[1, i + di, j + dj] if inside else torch.zeros(2))


def test_the_lstm_runs_down_the_rows() -> None:
    """Against a loop over positions, and its reach: one to the left, and from row to row one to both sides."""
    torch.manual_seed(0)
    rows = RowLSTM(2, 3).double()
    x = torch.randn(1, 4, 6, 2, dtype=torch.float64)
    found = rows(x)[0]
    zero = torch.zeros(3, dtype=torch.float64)
    h: dict[tuple[int, int], Tensor] = {}
    c: dict[tuple[int, int], Tensor] = {}
    for i in range(4):
        for j in range(6):
            left = x[0, i, j - 1] if j else zero[:2]
            above = [h.get((i - 1, j + d), zero) for d in (-1, 0, 1)]
            f, g, o, u = (rows.sums.weight @ torch.cat([left, x[0, i, j], *above]) + rows.sums.bias).view(4, 3)
            c[i, j] = f.sigmoid() * c.get((i - 1, j), zero) + g.sigmoid() * u.tanh()
            h[i, j] = o.sigmoid() * c[i, j].tanh()
            torch.testing.assert_close(found[i, j], h[i, j])


def test_a_bit_is_predicted_from_earlier_bits_alone() -> None:
    p = prior().double()
    y = bits(1, 7, 12, 2).double()
    x, s = y[..., :BITS], y[..., BITS:]
    predictor = p.predictors[1]
    base = predictor(x, s)
    raster = torch.arange(7 * 12).view(7, 12)
    for i, j in ((0, 0), (2, 5), (3, 11)):
        moved = x.clone()
        moved[0, i, j] *= -1
        changed = (predictor(moved, s) != base).any(-1)[0]
        assert not bool(changed[raster <= i * 12 + j].any())
        assert bool(changed[i, j + 1 :].any()) or j == 11
        if i < 6:
            # the window reaches three columns back in the next row, the fronts are as steep as that asks for
            assert bool(changed[i + 1, max(0, j - 3)])
            first = int(changed[i + 1].nonzero()[0])
            assert SLOPE * (i + 1) + first > SLOPE * i + j


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 1, 5), (1, 6, 1), (2, 5, 9), (3, 4, 4)])
def test_what_is_written_is_read(size: tuple[int, int, int]) -> None:
    B, h, w = size
    frozen, y = prior().frozen(), bits(B, h, w)
    encoders = [Encoder() for _ in range(B)]
    assert torch.equal(frozen.code(encoders, {"y": y}, None, (h, w)).float(), y)
    decoders = [Decoder(e.finish()) for e in encoders]
    assert torch.equal(frozen.code(decoders, None, None, (h, w)).float(), y)
    for d in decoders:
        d.finish()


def test_the_coder_thinks_what_training_thought() -> None:
    p, y = prior(), bits(2, 16, 20)
    with torch.no_grad():
        _, estimated = p(y)
    meters = [Meter(), Meter()]
    p.frozen().code(meters, {"y": y}, None, (16, 20))
    for b in range(2):
        assert abs(meters[b].bits["b"] / float(estimated["b"][b]) - 1) < 0.002
        assert abs(float(estimated["b"][b]) / y[b].numel() - 1) > 0.05  # it does think something
    encoder = Encoder()
    p.frozen().code([encoder], {"y": y[:1]}, None, (16, 20))
    assert abs(len(encoder.finish()) - meters[0].bits["b"] / 8) < 0.005 * meters[0].bits["b"] / 8 + 16


def test_every_bit_is_coded_with_the_probability_of_training() -> None:
    """The tables that the walk along fronts picks, against the float network over the whole picture."""

    class Listener(Meter):
        def __init__(self) -> None:
            super().__init__()
            self.index: list[np.ndarray] = []

        def code(self, part, tables, index, values):  # type: ignore[no-untyped-def]
            self.index.append(index)
            return super().code(part, tables, index, values)

    p, y, listener = prior(), bits(1, 9, 14), Listener()
    p.frozen().code([listener], {"y": y}, None, (9, 14))
    found = torch.from_numpy(np.concatenate(listener.index).astype(np.float64)).view(3, 9 * 14, BITS)
    order = wavefronts(1, 9, 14, SLOPE, WINDOW).order
    s, memory = None, None
    with torch.no_grad():
        for k, x in enumerate(y.split(BITS, dim=-1)):
            v = p.predictors[k](x, s).flatten(0, 2)[order]
            expected = (v.abs() * 2 / LOG_ODDS_STEP).clamp(max=61)
            assert float((found[k] - expected).abs().max()) < 0.6  # rounded to the nearest, but for the snapping
            if k < 2:
                s, memory = p.state_after(k, x, memory)
    assert found.unique().numel() > 20


def test_layers_end_where_they_can_be_read() -> None:
    """The stream's first bytes give the first layers; a lower level gives the same."""
    frozen, y = prior().frozen(), bits(1, 9, 13)
    encoder = Encoder()
    frozen.code([encoder], {"y": y}, None, (9, 13))
    data = encoder.finish()
    assert len(encoder.ends) == 3
    assert encoder.ends[-1] == len(data)
    for k, end in enumerate(encoder.ends, 1):
        level = torch.tensor([k])
        assert torch.equal(frozen.code([Decoder(data[:end])], None, level, (9, 13)).float(), y[..., : k * BITS])
        fewer = Encoder()
        coded = frozen.code([fewer], {"y": y}, level, (9, 13)).float()
        assert torch.equal(coded, torch.cat([y[..., : k * BITS], 0 * y[..., k * BITS :]], dim=-1))
        assert fewer.finish()[: end - 8] == data[: end - 8]


def test_what_is_no_bit_is_damage() -> None:
    class Liar(Decoder):
        def code(self, part, tables, index, values=None):  # type: ignore[no-untyped-def]
            return np.full(len(index), -1, np.int32)

    with pytest.raises(DamagedError, match="bit"):
        prior().frozen().code([Liar(b"")], None, None, (3, 3))


def test_code_length() -> None:
    v = torch.linspace(-3, 3, 61)
    p = (1 + torch.tanh(v)) / 2
    torch.testing.assert_close(code_length(v, torch.ones(61)), -torch.log2(p), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(code_length(v, -torch.ones(61)), -torch.log2(1 - p), rtol=1e-4, atol=1e-6)
    far = torch.tensor([-50.0, 50.0], requires_grad=True)
    saturated = code_length(far, torch.ones(2))
    worst = math.log2(1 + math.exp(LOG_ODDS_MAX))
    torch.testing.assert_close(saturated.detach(), torch.tensor([worst, worst - LOG_ODDS_MAX / math.log(2)]))
    saturated.sum().backward()
    assert far.grad is not None and far.grad[0] < 0 and far.grad[1] == 0  # a wrong certainty is still corrected


def test_tables_are_of_log_odds() -> None:
    t = tables()
    k = np.array([0, 1, 30, 61])
    p = 1 / (1 + np.exp(-k / 8))
    assert np.allclose([t.frequencies[i][1] / 2**24 for i in k], p, atol=1e-6)
    assert abs(2 * t.frequencies[61][1] / 2**24 - 1 - 0.999) < 1e-4


@pytest.mark.parametrize("iterations", [1, 2, 5, 8, 12, 16])
def test_qualities_and_layers(iterations: int) -> None:
    p = BinaryPrior(iterations, 1, 1)
    levels = p.condition(torch.linspace(1, 100, 991))
    assert levels is not None
    assert levels[0] == 1 or iterations == 1
    assert levels[-1] == iterations
    assert bool((levels.diff() >= 0).all())
    for n in range(1, iterations + 1):
        found = p.condition(torch.tensor([p.quality_of(n)]))
        assert found is not None and int(found) == n
    assert p.condition(None) is None


def test_no_gradient_reaches_the_codec_and_all_weights_have_one() -> None:
    p = prior().train()
    y = bits(2, 6, 6).requires_grad_()
    y_hat, cost = p(y, torch.tensor([3, 1]))
    assert y_hat is y
    (cost["b"].sum() + 0 * y.sum()).backward()
    assert y.grad is not None and not bool(y.grad.any())
    for name, weight in p.named_parameters():
        assert weight.grad is not None and bool((weight.grad != 0).any()), name
    with torch.no_grad():
        _, all_layers = p(y)
        per_layer = p.bits_of_layers(y)
    torch.testing.assert_close(per_layer.sum(1), all_layers["b"])
    torch.testing.assert_close(per_layer[1, 0], cost["b"][1].detach())


def test_a_kodak_picture_has_this_many_fronts_a_layer() -> None:
    assert len(wavefronts(1, 32, 48, SLOPE, WINDOW).fronts) == 172
