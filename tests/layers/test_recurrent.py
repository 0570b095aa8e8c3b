"""Each cell against its equations, written out for a single pixel or in complex numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lichen.coding import exact
from lichen.layers.recurrent import CELLS, AssociativeLSTM, ConvGRU, ConvLSTM, ResidualGRU


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("stride", [1, 2])
def test_shapes_and_state(name: str, stride: int) -> None:
    torch.manual_seed(0)
    cell = CELLS[name](3, 8, 3, 3, stride)
    x = numbers(2, 3, 7, 10)
    first, state = cell(x, None)
    second, after = cell(x, state)
    assert first.shape == second.shape == (2, 8, math.ceil(7 / stride), math.ceil(10 / stride))
    assert not torch.allclose(first, second)  # the state matters
    again, _ = cell(x, state)
    assert torch.equal(second, again)  # and is not changed in place
    assert type(state) is type(after)


@pytest.mark.parametrize("name", CELLS)
def test_no_state_is_a_state_of_zeros(name: str) -> None:
    torch.manual_seed(0)
    cell = CELLS[name](3, 8, 3, 1, 2)
    x = numbers(2, 3, 6, 6)
    _, state = cell(x, None)
    zeros = tuple(torch.zeros_like(t) for t in state) if isinstance(state, tuple) else torch.zeros_like(state)
    torch.testing.assert_close(cell(x, zeros)[0], cell(x, None)[0])


@pytest.mark.parametrize("name", CELLS)
def test_every_weight_has_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    cell, state = CELLS[name](3, 8, 3, 3, 1), None
    for k in range(3):
        out, state = cell(numbers(1, 3, 5, 5, seed=k), state)
    (out**2).sum().backward()
    for key, p in cell.named_parameters():
        assert p.grad is not None and bool((p.grad != 0).any()), key


def weights_of(cell: Any) -> list[tuple[Tensor, Tensor | None]]:
    """Matrices and biases of a cell of 1x1 convolutions."""
    convs = [m for m in cell.modules() if isinstance(m, torch.nn.Conv2d)]
    return [(m.weight.detach()[:, :, 0, 0], None if m.bias is None else m.bias.detach()) for m in convs]


def test_lstm() -> None:
    torch.manual_seed(0)
    cell = ConvLSTM(2, 3, 1, 1)
    (W, b), (U, _) = weights_of(cell)
    assert b is not None and float(b[:3].min()) > 0  # forget gates begin open
    h, c, state = torch.zeros(3), torch.zeros(3), None
    for k in range(4):
        x = numbers(1, 2, 1, 1, seed=k)
        f, i, o, j = (W @ x.flatten() + U @ h + b).view(4, 3)
        c = f.sigmoid() * c + i.sigmoid() * j.tanh()
        h = o.sigmoid() * c.tanh()
        out, state = cell(x, state)
        torch.testing.assert_close(out.flatten(), h)


def test_gru() -> None:
    torch.manual_seed(0)
    cell = ConvGRU(2, 3, 1, 1)
    (W, b), (U, _), (U2, _) = weights_of(cell)
    h, state = torch.zeros(3), None
    for k in range(4):
        x = numbers(1, 2, 1, 1, seed=k)
        of_x = W @ x.flatten() + b
        z, r = (of_x[:6] + U @ h).sigmoid().view(2, 3)
        h = (1 - z) * h + z * (of_x[6:] + U2 @ (r * h)).tanh()
        out, state = cell(x, state)
        torch.testing.assert_close(out.flatten(), h)


def test_residual_gru() -> None:
    torch.manual_seed(0)
    cell = ResidualGRU(2, 3, 1, 1)
    (W_h, _), (W_x, _) = weights_of(cell)[-2:]
    h, state = torch.zeros(3), None
    for k in range(4):
        x = numbers(1, 2, 1, 1, seed=k)
        inner, _ = cell.gru(x, h[None, :, None, None])
        h = (inner.flatten() + 0.1 * W_h @ h).detach()
        out, state = cell(x, state)
        torch.testing.assert_close(out.flatten(), h + 0.1 * W_x @ x.flatten())
        torch.testing.assert_close(state.flatten(), h)


def test_associative_lstm() -> None:
    torch.manual_seed(0)
    K, n = 5, 4
    cell = AssociativeLSTM(2, 2 * n, 1, 1, copies=K)
    with torch.no_grad():
        cell.of_input.weight.mul_(4.0)  # magnitudes on both sides of 1
    (W, b), (U, _) = weights_of(cell)

    def complex_of(v: Tensor) -> Tensor:
        return torch.complex(v[:n], v[n:])

    def bound(z: Tensor) -> Tensor:
        return torch.where(z.abs() > 1, z / z.abs(), z)

    h, c, state = torch.zeros(2 * n), torch.zeros(K, n, dtype=torch.complex64), None
    bounded = 0
    for step in range(4):
        x = numbers(1, 2, 1, 1, seed=step)
        sums = W @ x.flatten() + U @ h + b
        f, i, o = sums[: 3 * n].sigmoid().view(3, n)
        raw = [complex_of(v) for v in sums[3 * n :].view(3, 2 * n)]
        bounded += sum(int((z.abs() > 1).sum()) for z in raw)
        j, r_i, r_o = map(bound, raw)
        c = torch.stack([f * c[k] + r_i[cell.order[k]] * (i * j) for k in range(K)])
        read = torch.stack([r_o[cell.order[k]] * c[k] for k in range(K)]).mean(0)
        out = o * bound(read)
        h = torch.cat([out.real, out.imag])
        found, state = cell(x, state)
        torch.testing.assert_close(found.flatten(), h)
    assert 0 < bounded < 4 * 3 * n


def test_associative_memory_retrieves_by_key() -> None:
    """c = sum of key * value: multiplied by a key's inverse it gives back that value, the better the more copies."""
    errors = []
    for copies in (1, 16):
        n = 256
        cell = AssociativeLSTM(2, 2 * n, 1, 1, copies=copies)
        assert all(torch.equal(o.sort().values, torch.arange(n)) for o in cell.order)
        angle, value = numbers(6, n) * 10, torch.complex(numbers(6, n, seed=1), numbers(6, n, seed=2))
        key = torch.polar(torch.ones_like(angle), angle)
        c = sum(key[k][cell.order] * value[k] for k in range(6))
        found = (key[2].conj()[cell.order] * c).mean(0)
        errors.append(float((found - value[2]).abs().pow(2).mean()))
    assert errors[1] < errors[0] / 8


def test_odd_channels_are_no_complex_numbers() -> None:
    with pytest.raises(ValueError, match="even"):
        AssociativeLSTM(2, 3)


def test_a_frozen_lstm_agrees_and_stays_on_the_grid() -> None:
    torch.manual_seed(0)
    cell = ConvLSTM(4, 6, 3, 3)
    frozen = exact.freeze(torch.nn.Sequential(cell))[0]
    state, exact_state = None, None
    for k in range(5):
        x = exact.snap(numbers(1, 4, 5, 6, seed=k).double())
        out, state = cell(x.float(), state)
        found, exact_state = frozen(x, exact_state)
        torch.testing.assert_close(found.float(), out, atol=3e-3, rtol=0)
        c = exact_state[1] * 2**exact.ACTIVATION_BITS
        assert torch.equal(c, c.round())


def test_gradients_are_the_same_in_any_layout() -> None:
    torch.manual_seed(0)
    cell = ResidualGRU(4, 8, 3, 1, 2)
    x, found = numbers(2, 4, 16, 16), []
    for layout in (torch.contiguous_format, torch.channels_last):
        cell.zero_grad()
        cell(x.contiguous(memory_format=layout), None)[0].square().sum().backward()
        found.append([p.grad for p in cell.parameters() if p.grad is not None])
    torch.testing.assert_close(found[0], found[1])
