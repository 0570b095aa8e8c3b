from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding.exact import freeze
from lichen.priors.context import wavefronts
from lichen.priors.window import ABOVE4, AROUND5, Window, WindowConv, WindowPredictor

WINDOWS = [AROUND5, ABOVE4, Window(1, 1, 1, 1), Window(2, 1, 0, 1)]


def on_grid(*shape: int) -> Tensor:
    return torch.randint(-(2**14), 2**14, shape).double() / 2**12


def windows_one_by_one(x: Tensor, window: Window, causal: bool) -> Tensor:
    """(B, h, w, C) -> (B h w, C, k, k), place by place, from the definition."""
    B, h, w, C = x.shape
    found = torch.zeros(B, h, w, C, window.side, window.side, dtype=x.dtype)
    for i in range(h):
        for j in range(w):
            for a, row in enumerate(range(i - window.top, i + window.bottom + 1)):
                for b, column in enumerate(range(j - window.left, j + window.right + 1)):
                    before = (row, column) < (i, j)
                    if 0 <= row < h and 0 <= column < w and (before or not causal):
                        found[:, i, j, :, a, b] = x[:, row, column]
    return found.flatten(0, 2)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("causal", [False, True])
def test_a_window_is_convolved_on_its_own(window: Window, causal: bool) -> None:
    torch.manual_seed(0)
    conv = WindowConv(3, 4, window, causal).double()
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64)
    y = F.conv2d(windows_one_by_one(x, window, causal), conv.weight, conv.bias, padding=1)
    torch.testing.assert_close(conv(x), y.permute(0, 2, 3, 1).reshape(2, 4, 5, -1))


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 4)])
def test_the_exact_predictor_gives_the_same_bits(window: Window, size: tuple[int, int]) -> None:
    """Sums in another order against plain convolutions window by window: where nothing is rounded, all bits agree."""
    torch.manual_seed(0)
    snapped: Any = WindowPredictor(6, 5, 7, window).double()
    frozen: Any = freeze(nn.Sequential(snapped))[0]
    for p in snapped.parameters():
        p.data = torch.round(p.data * 2**16) / 2**16

    x, head = on_grid(2, *size, 6), snapped.head

    def grid(t: Tensor) -> Tensor:
        return torch.round(t * 2**12) / 2**12

    with torch.no_grad():
        t = F.conv2d(windows_one_by_one(x, window, False), snapped.conv.weight, snapped.conv.bias, padding=1)
        t = F.conv2d(grid(F.leaky_relu(t, 0.2)), head.conv2.weight, head.conv2.bias, stride=2, padding=1)
        t = F.conv2d(grid(F.leaky_relu(t, 0.2)), head.conv3.weight, head.conv3.bias, padding=1)
        t = grid(F.leaky_relu(t, 0.2)).permute(0, 2, 3, 1).flatten(1)
        expected = F.linear(t, head.linear.weight, head.linear.bias).view(2, *size, 7)
        assert torch.equal(frozen(x), expected)
        assert torch.equal(frozen(x[1:]), expected[1:])
        torch.testing.assert_close(snapped(x), expected, atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("window", [ABOVE4, AROUND5, Window(2, 1, 0, 1)])
def test_the_exact_context_is_the_masked_convolution(window: Window) -> None:
    """Front by front, from what was kept of the latents before, against all positions at once."""
    torch.manual_seed(0)
    frozen: Any = freeze(nn.Sequential(WindowConv(4, 3, window, causal=True)))[0]
    B, h, w = 2, 6, 7
    x = on_grid(B, h, w, 4)
    weight = frozen.weight.unflatten(0, (3, 3, 3)).permute(2, 3, 0, 1)
    expected = F.conv2d(windows_one_by_one(x, window, True), weight, frozen.bias, padding=1)
    expected = expected.permute(0, 2, 3, 1).flatten(1)
    walk = wavefronts(B, h, w, frozen.slope, frozen.taps)
    past = frozen.keep(x.new_zeros(1, 4)).repeat(B * h * w + 1, 1)
    for front, neighbours in zip(walk.fronts, walk.neighbours, strict=True):
        assert torch.equal(frozen(past, neighbours)[: front.stop - front.start], expected[walk.order[front]])
        past[front] = frozen.keep(x.flatten(0, 2)[walk.order[front]])


def test_a_window_moves_its_own_position_alone() -> None:
    torch.manual_seed(0)
    predictor = WindowPredictor(2, 4, 3, ABOVE4).double()
    x = torch.randn(1, 8, 9, 2, dtype=torch.float64)
    base = predictor(x)
    moved = x.clone()
    moved[0, 3, 4] += 1.0
    changed = (predictor(moved) != base).any(-1)[0]
    for i in range(8):
        for j in range(9):
            assert bool(changed[i, j]) == (0 <= i - 3 <= 3 and -1 <= j - 4 <= 2), (i, j)


def test_windows() -> None:
    assert ABOVE4.side == 4
    assert sum(ABOVE4.causal) == 14
    assert ABOVE4.causal == (True,) * 14 + (False,) * 2
    assert ABOVE4.slope == 2
    assert (AROUND5.side, sum(AROUND5.causal), AROUND5.slope) == (5, 12, 3)
    for window in WINDOWS:
        offsets = [o for o, causal in zip(window.offsets, window.causal, strict=True) if causal]
        assert all(window.slope * i + j < 0 for i, j in offsets)
        assert window.slope == 1 or any((window.slope - 1) * i + j >= 0 for i, j in offsets)
    with pytest.raises(ValueError, match="no square"):
        Window(3, 2, 0, 2)
