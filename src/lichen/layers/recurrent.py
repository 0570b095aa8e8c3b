"""Recurrent cells whose sums are convolutions.

A cell is a module `(input, state) -> (output, state)`; the state before the first step is None, which stands for zeros.
Input (B, C, H, W), output (B, C', H/stride, W/stride), rounded up; `kernel` is that of the sums over the input,
`hidden_kernel` that of the sums over the cell's own last output. W * x and U * h below are those convolutions.

Equations after Toderici, Vincent, Johnston, Hwang, Minnen, Shor, Covell: "Full resolution image compression with
recurrent neural networks", CVPR 2017, its part on types of recurrent units, as we know it: the public code has LSTMs
alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lichen.coding.exact import Snap


def _of_input(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def _of_hidden(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


class LSTMStep(nn.Module):
    """What an LSTM does with the sums of its gates, f, i, o, j along the dimension `dim`; exact when frozen.

    c = sigmoid(f) c + sigmoid(i) tanh(j),  h = sigmoid(o) tanh(c)
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.sigmoid, self.tanh, self.snap = nn.Sigmoid(), nn.Tanh(), Snap()

    def forward(self, sums: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        """sums: 4 n along `dim`; c: n, or None for zeros. Returns h and the new c."""
        f, i, o, j = sums.chunk(4, self.dim)
        written = self.sigmoid(i) * self.tanh(j)
        c = self.snap(written if c is None else self.sigmoid(f) * c + written)
        return self.sigmoid(o) * self.tanh(c), c


@torch.no_grad()
def remember_at_first(bias: Tensor | None) -> None:
    """Start the forget gates, the first quarter of an LSTM's bias, at 1 (Jozefowicz et al., ICML 2015)."""
    assert bias is not None
    bias[: len(bias) // 4].add_(1.0)


class ConvLSTM(nn.Module):
    """[f, i, o, j] = W * x + U * h + b, then `LSTMStep`. Exact when frozen."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, hidden_kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.of_input = _of_input(inputs, 4 * outputs, kernel, stride)
        self.of_hidden = _of_hidden(outputs, 4 * outputs, hidden_kernel)
        self.step = LSTMStep(1)
        remember_at_first(self.of_input.bias)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x: (B, C, H, W); state: h and c, (B, C', H/stride, W/stride) each."""
        sums, c = self.of_input(x), None
        if state is not None:
            h, c = state
            sums = sums + self.of_hidden(h)
        h, c = self.step(sums.to(x.dtype), c)
        return h, (h, c)


class AssociativeLSTM(nn.Module):
    """An LSTM whose memory holds redundant copies of complex numbers, addressed by keys.

    [f, i, o, j, r_i, r_o] = W * x + U * h + b;  sigmoid for the gates f, i, o, bound for j and the keys r_i, r_o
    c_k = f c_k + (P_k r_i) (i j),  h = o bound(1/K sum_k (P_k r_o) c_k)

    for the copies k = 1..K, with fixed random permutations P_k, products of complex numbers, and bound(z) = z / max(1,
    |z|). Channels are the real parts, then the imaginary ones; gates are real, one for both parts.

    Danihelka, Wayne, Uria, Kalchbrenner, Graves: "Associative long short-term memory", ICML 2016. The number of copies
    is that paper's; Toderici et al.'s is not known to us.
    """

    order: Tensor

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, hidden_kernel: int = 1, stride: int = 1, copies: int = 8
    ) -> None:
        """ValueError where outputs is odd."""
        super().__init__()
        if outputs % 2:
            raise ValueError(f"{outputs} channels are no complex numbers: the number has to be even")
        self.units = outputs // 2
        sums = 3 * self.units + 3 * outputs
        self.of_input = _of_input(inputs, sums, kernel, stride)
        self.of_hidden = _of_hidden(outputs, sums, hidden_kernel)
        order = np.stack([np.random.RandomState(k).permutation(self.units) for k in range(copies)])
        self.register_buffer("order", torch.from_numpy(order), persistent=False)  # (K, units); a stream frozen by NumPy

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x: (B, C, H, W); state: h (B, C', H', W') and c (B, K, 2, C'/2, H', W')."""
        sums, c = self.of_input(x), None
        if state is not None:
            h, c = state
            sums = sums + self.of_hidden(h)
        n = self.units
        gates, others = sums.to(x.dtype).split([3 * n, 6 * n], 1)
        f, i, o = torch.sigmoid(gates).unflatten(1, (3, n)).unbind(1)  # (B, n, H', W')
        j, r_i, r_o = (_bound(z) for z in others.unflatten(1, (3, 2, n)).unbind(1))  # (B, 2, n, H', W')
        written = _times(r_i[:, :, self.order].transpose(1, 2), (i[:, None] * j)[:, None])  # (B, K, 2, n, H', W')
        c = written if c is None else f[:, None, None] * c + written
        read = _times(r_o[:, :, self.order].transpose(1, 2), c).mean(1)
        h = (o[:, None] * _bound(read)).flatten(1, 2)
        return h, (h, c)


def _bound(z: Tensor) -> Tensor:
    """Complex numbers (B, 2, ...) of magnitudes above 1 -> their direction; others unchanged."""
    return z / (z * z).sum(1, keepdim=True).clamp(min=1.0).sqrt()


def _times(a: Tensor, b: Tensor) -> Tensor:
    """Products of complex numbers (B, K, 2, ...), which may broadcast."""
    (a_re, a_im), (b_re, b_im) = a.unbind(2), b.unbind(2)
    return torch.stack([a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re], dim=2)


class ConvGRU(nn.Module):
    """z, r = sigmoid(W * x + U * h + b),  h = (1 - z) h + z tanh(W' * x + U' * (r h) + b').

    Cho et al.: "Learning phrase representations using RNN encoder-decoder for statistical machine translation", EMNLP
    2014; biases are ours.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, hidden_kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.outputs = outputs
        self.of_input = _of_input(inputs, 3 * outputs, kernel, stride)
        self.of_hidden = _of_hidden(outputs, 2 * outputs, hidden_kernel)
        self.of_reset = _of_hidden(outputs, outputs, hidden_kernel)

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x: (B, C, H, W); h: (B, C', H/stride, W/stride). Output and state are the same."""
        gates, candidate = self.of_input(x).split([2 * self.outputs, self.outputs], 1)
        if h is None:
            z, _ = torch.sigmoid(gates.to(x.dtype)).chunk(2, 1)
            h = z * torch.tanh(candidate.to(x.dtype))
        else:
            z, r = torch.sigmoid((gates + self.of_hidden(h)).to(x.dtype)).chunk(2, 1)
            h = h + z * (torch.tanh((candidate + self.of_reset(r * h)).to(x.dtype)) - h)
        return h, h


class ResidualGRU(nn.Module):
    """A GRU with a linear path around it in time and one in depth.

    h' = GRU(x, h) + 0.1 W_h * h,  output = h' + 0.1 W_x * x

    The kernels of W_h and W_x are our choice, 1x1, W_x with the cell's stride. It reads the positions that it takes
    before it convolves: the gradient of a strided 1x1 convolution of fewer than 8 channels, laid out last, writes
    past its memory on processors without AVX-512 (oneDNN, issue 6035).
    """

    alpha = 0.1

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, hidden_kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.gru = ConvGRU(inputs, outputs, kernel, hidden_kernel, stride)
        self.around_time = nn.Conv2d(outputs, outputs, 1, bias=False)
        self.around_depth = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.stride = stride

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x: (B, C, H, W); h: (B, C', H/stride, W/stride)."""
        after, _ = self.gru(x, h)
        if h is not None:
            after = after + self.alpha * self.around_time(h).to(x.dtype)
        taken = x[:, :, :: self.stride, :: self.stride]
        return after + self.alpha * self.around_depth(taken).to(x.dtype), after


CELLS: dict[str, Any] = {
    "lstm": ConvLSTM,
    "associative-lstm": AssociativeLSTM,
    "gru": ConvGRU,
    "residual-gru": ResidualGRU,
}
"""Name -> class; all are made from (inputs, outputs, kernel, hidden_kernel, stride)."""
