"""Networks that look at the window of features around each position as a small picture of its own.

Lee, Cho, Beack (ICLR 2019) and Hu, Yang, Liu (AAAI 2020) predict the distribution of a latent from a window of a few
rows and columns: three 3x3 convolutions, which see zeros beyond the window's border (so that this is no convolution
over the whole picture), and a fully connected layer.

    window (k, k, C) --> conv 3x3 --> lrelu --> conv 3x3 /2 --> lrelu --> conv 3x3 --> lrelu --> linear --> outputs
                         WindowConv   |---------------------------- WindowHead ------------------------------|

`WindowPredictor` is all of it. The first convolution would cost most by far, but windows overlap: frozen, its products
are computed once a position, and each window adds up its own of them. What comes in by several ways (decoded latents,
hyper-features) goes through a `WindowConv` each, whose outputs are added.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding import exact
from lichen.priors.context import ExactContext, Taps

KERNEL = 3
SLOPE = 0.2  # of the leaky ReLU; TensorFlow's own


@dataclass(frozen=True)
class Window:
    """Rows i - top .. i + bottom and columns j - left .. j + right around a position (i, j): as many of both."""

    top: int
    left: int
    bottom: int
    right: int

    def __post_init__(self) -> None:
        if self.top + self.bottom != self.left + self.right or min(self.top, self.left, self.bottom, self.right) < 0:
            raise ValueError(f"{self} is no square around its position")

    @property
    def side(self) -> int:
        """k, its rows and its columns."""
        return self.top + self.bottom + 1

    @property
    def offsets(self) -> Taps:
        """(row, column) of its k * k places, in raster order, seen from the position."""
        rows, columns = range(-self.top, self.bottom + 1), range(-self.left, self.right + 1)
        return tuple((i, j) for i in rows for j in columns)

    @property
    def causal(self) -> tuple[bool, ...]:
        """Which of the places come before the position in raster order."""
        return tuple(offset < (0, 0) for offset in self.offsets)

    @property
    def slope(self) -> int:
        """The least with which `slope * row + column` is below zero at all causal places."""
        return 1 if self.top == 0 else 1 + self.right

    def pad(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h + k - 1, w + k - 1, C): zeros around the picture."""
        return F.pad(x, (0, 0, self.left, self.right, self.top, self.bottom))

    def patches(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B h w, C, k, k): the window of every position, zeros outside the picture. A view's copy."""
        return self.pad(x).unfold(1, self.side, 1).unfold(2, self.side, 1).flatten(0, 2)


AROUND5 = Window(2, 2, 2, 2)
"""5x5, the position in its middle (Hu et al. 2020)."""

ABOVE4 = Window(3, 2, 0, 1)
"""4x4, rows i - 3 .. i and columns j - 2 .. j + 1 (Lee et al. 2019); 14 of them come before the position."""


class WindowConv(nn.Module):
    """3x3 convolution over each position's window with zeros around it: (B, h, w, C) -> (B, h, w, k k outputs).

    Outputs are ordered by place in the window, then channel. `causal`: of the window, it sees the places alone that
    come before the position in raster order.
    """

    def __init__(self, inputs: int, outputs: int, window: Window, causal: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.window, self.causal = window, causal
        conv = nn.Conv2d(inputs, outputs, KERNEL, padding=KERNEL // 2, bias=bias)
        self.weight, self.bias = conv.weight, conv.bias  # (outputs, C, 3, 3), (outputs,)

    def forward(self, x: Tensor) -> Tensor:
        """Any size, zeros outside the picture."""
        patches = self.window.patches(x)
        if self.causal:
            patches = patches * patches.new_tensor(self.window.causal).view(self.window.side, self.window.side)
        y = F.conv2d(patches, self.weight, self.bias, padding=KERNEL // 2)  # (B h w, outputs, k, k)
        return y.permute(0, 2, 3, 1).reshape(*x.shape[:3], -1).to(x.dtype)

    def exact(self) -> nn.Module:
        """The twin that computes each position's products once; the causal one works on positions before."""
        return ExactCausalWindowConv(self) if self.causal else ExactWindowConv(self)


class ExactWindowConv(nn.Module):
    """`WindowConv` in exact arithmetic, at all positions."""

    weight: Tensor
    bias: Tensor

    def __init__(self, twin: WindowConv) -> None:
        super().__init__()
        self.window, self.outputs = twin.window, len(twin.weight)
        self.register_buffer("weight", _by_tap(twin.weight))
        self.register_buffer("bias", _bias(twin))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, k k outputs). What a place adds up depends on its own kind (at which border of the
        window it lies) and on where in the picture it is: nine sums serve all windows."""
        _, h, w, _ = x.shape
        k = self.window.side
        p = F.pad(self.window.pad(F.linear(exact.snap(x), self.weight)), (0, 0, 1, 1, 1, 1))
        p = p.unflatten(-1, (KERNEL, KERNEL, -1))
        kinds = [range(KERNEL)[_span(at, k)[1]] for at in range(k)]  # each place's taps
        rows = {taps: _sum(p[:, u : u + h + k - 1, :, u] for u in taps) for taps in set(kinds)}
        sums = {
            (of_rows, taps): _sum(t[:, :, v : v + w + k - 1, v] for v in taps)
            for of_rows, t in rows.items()
            for taps in set(kinds)
        }
        places = [sums[kinds[i], kinds[j]][:, i : i + h, j : j + w] for i in range(k) for j in range(k)]
        return torch.stack(places, dim=3).add_(self.bias).flatten(3)


class ExactCausalWindowConv(ExactContext):
    """`WindowConv` at some positions, from latents before them, of which it keeps the products with the nine taps."""

    weight: Tensor
    bias: Tensor

    def __init__(self, twin: WindowConv) -> None:
        super().__init__()
        self.window, self.slope = twin.window, twin.window.slope
        self.register_buffer("weight", _by_tap(twin.weight))
        self.register_buffer("bias", _bias(twin))

    @property
    def taps(self) -> Taps:
        """All of the window."""
        return self.window.offsets

    def keep(self, latents: Tensor) -> Tensor:
        """(n, C), on the grid -> (n, 9 outputs), by tap, then channel."""
        return F.linear(latents, self.weight)

    def forward(self, past: Tensor, neighbours: Tensor) -> Tensor:
        """past: (rows, 9 outputs); neighbours: (n, k k) -> (n, k k outputs)."""
        n, k = len(neighbours), self.window.side
        p = past.index_select(0, neighbours.flatten()).view(n, k, k, KERNEL, KERNEL, -1)
        y = self.bias.repeat(n, k, k, 1)
        for u in range(KERNEL):
            rows, from_rows = _shifted(u, k)
            for v in range(KERNEL):
                columns, from_columns = _shifted(v, k)
                y[:, rows, columns] += p[:, from_rows, from_columns, u, v]
        return y.flatten(1)


def _shifted(tap: int, side: int) -> tuple[slice, slice]:
    """Places of a window that see something through a tap, and the places they see."""
    start, stop = max(0, 1 - tap), min(side, side + 1 - tap)
    return slice(start, stop), slice(start + tap - 1, stop + tap - 1)


def _by_tap(weight: Tensor) -> Tensor:
    """A 3x3 kernel (outputs, C, 3, 3) -> (9 outputs, C)."""
    exact.check_rows(weight.detach().flatten(1))
    return weight.detach().permute(2, 3, 0, 1).flatten(0, 2).contiguous()


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return functools.reduce(torch.add, parts)


def _bias(conv: WindowConv) -> Tensor:
    return conv.weight.new_zeros(len(conv.weight)).detach() if conv.bias is None else conv.bias.detach()


class WindowHead(nn.Module):
    """What follows a `WindowConv`: (..., k k hidden) -> (..., outputs)."""

    def __init__(self, hidden: int, outputs: int, window: Window) -> None:
        super().__init__()
        self.side, half = window.side, -(-window.side // 2)
        self.lrelu = nn.LeakyReLU(SLOPE)
        self.conv2 = nn.Conv2d(hidden, hidden, KERNEL, 2, padding=KERNEL // 2)  # k x k -> k/2 x k/2, rounded up
        self.conv3 = nn.Conv2d(hidden, hidden, KERNEL, 1, padding=KERNEL // 2)
        self.linear = nn.Linear(half * half * hidden, outputs)  # by place, then channel

    def forward(self, x: Tensor) -> Tensor:
        """Any number of windows."""
        t = x.flatten(0, -2).unflatten(1, (self.side, self.side, -1)).permute(0, 3, 1, 2)  # (n, hidden, k, k)
        t = self.lrelu(self.conv2(self.lrelu(t)))
        t = self.lrelu(self.conv3(t))
        return self.linear(t.permute(0, 2, 3, 1).flatten(1)).unflatten(0, x.shape[:-1]).to(x.dtype)

    def exact(self) -> nn.Module:
        """The twin of matrix products."""
        return ExactWindowHead(self)


class ExactWindowHead(nn.Module):
    """`WindowHead` in exact arithmetic: (..., k k hidden) -> (..., outputs)."""

    def __init__(self, twin: WindowHead) -> None:
        super().__init__()
        self.side, self.lrelu = twin.side, twin.lrelu
        self.conv2 = ExactUnrolledConv(twin.conv2, self.side)
        self.conv3 = ExactUnrolledConv(twin.conv3, self.conv2.sides[1])
        self.linear = exact.ExactLinear(twin.linear.weight, twin.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Any number of windows."""
        t = x.flatten(0, -2).unflatten(1, (self.side, self.side, -1))
        t = self.lrelu(self.conv2(self.lrelu(t)))
        t = self.lrelu(self.conv3(t))
        outputs: Tensor = self.linear(t.flatten(1)).unflatten(0, x.shape[:-1])
        return outputs


class ExactUnrolledConv(nn.Module):
    """3x3 convolution of small windows (n, k, k, C) -> (n, k', k', C'): a matrix product for each place of the output,
    over those of its taps that lie inside."""

    bias: Tensor

    def __init__(self, conv: nn.Conv2d, side: int) -> None:
        super().__init__()
        weight = conv.weight.detach()
        assert conv.bias is not None
        exact.check_rows(weight.flatten(1))
        self.sides = side, (side - 1) // conv.stride[0] + 1
        self.register_buffer("bias", conv.bias.detach())
        kernel = weight.permute(2, 3, 1, 0)  # (3, 3, C, C')
        spans = [_span(at * conv.stride[0], side) for at in range(self.sides[1])]
        self.places: list[tuple[slice, slice, str]] = []  # rows and columns of the input, and the name of the weights
        for rows, of_rows in spans:
            for columns, of_columns in spans:
                name = f"weight_{of_rows.start}{of_rows.stop}_{of_columns.start}{of_columns.stop}"
                self.places.append((rows, columns, name))
                if not hasattr(self, name):
                    self.register_buffer(name, kernel[of_rows, of_columns].flatten(0, 2).contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """Any number of windows."""
        x = exact.snap(x)
        y = x.new_empty(len(self.places), len(x), len(self.bias))
        for out, (rows, columns, weight) in zip(y, self.places, strict=True):
            torch.mm(x[:, rows, columns].flatten(1), self.get_buffer(weight), out=out)
        return y.add_(self.bias).transpose(0, 1).unflatten(1, (self.sides[1], self.sides[1]))


def _span(at: int, side: int) -> tuple[slice, slice]:
    """What a kernel around place `at` of a window sees of it: places, and taps."""
    start, stop = max(0, at - 1), min(side, at + 2)
    return slice(start, stop), slice(start - at + 1, stop - at + 1)


class WindowPredictor(nn.Module):
    """Features (B, h, w, C) -> outputs (B, h, w, outputs), each position's from its own window alone."""

    def __init__(self, inputs: int, hidden: int, outputs: int, window: Window) -> None:
        super().__init__()
        self.conv, self.head = WindowConv(inputs, hidden, window), WindowHead(hidden, outputs, window)

    def forward(self, x: Tensor) -> Tensor:
        """Any size, zeros outside the picture."""
        outputs: Tensor = self.head(self.conv(x))
        return outputs
