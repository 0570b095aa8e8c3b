"""Convolutions whose kernels are held in the domain of the discrete Fourier transform.

    Balle: Efficient nonlinear transforms for lossy image compression. PCS 2018 ("Sadam")

The parameter is the kernel's spectrum, in an orthonormal real basis of cosines and sines along each of its two sides:

    kernel = irdft(spectrum) = B^T spectrum B,    B B^T = 1

What the layer can compute does not change, nor its start, nor a step of plain gradient descent. An optimizer that
scales each number by itself, such as Adam, does step otherwise: it scales frequencies in place of taps, and gradients
differ more between frequencies than between taps.

The basis is that of TensorFlow Compression, real, with as many members as the kernel has taps: a spectrum is an
ordinary parameter to optimizers, to half precision and to files of weights.
"""

from __future__ import annotations

import math
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def real_dft(n: int) -> Tensor:
    """The orthonormal real Fourier basis of length n, (n, n) in float64: a row each of 1, cos, sin, cos, sin, ..."""
    t = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n
    rows = [torch.ones_like(t) / math.sqrt(n)]
    for k in range(1, n // 2 + 1):
        if 2 * k == n:
            rows.append(torch.cos(k * t) / math.sqrt(n))
        else:
            rows += [math.sqrt(2 / n) * torch.cos(k * t), -math.sqrt(2 / n) * torch.sin(k * t)]
    return torch.stack(rows)


class Spectral(nn.Module):
    """A kernel (a, b, k, k) held as its `spectrum`, of the same shape."""

    basis: Tensor
    bias: Tensor | None

    def __init__(self, start: Tensor, bias: Tensor | None) -> None:
        """start: the kernel to begin with."""
        super().__init__()
        if start.shape[2] != start.shape[3]:
            raise ValueError(f"kernels have to be square, not {start.shape[2]}x{start.shape[3]}")
        basis = real_dft(start.shape[2])
        self.register_buffer("basis", basis.to(start.dtype), persistent=False)  # (k, k)
        self.spectrum = nn.Parameter((basis @ start.detach().double() @ basis.T).to(start.dtype))
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach()))

    @property
    def weight(self) -> Tensor:
        """The kernel, differentiable in the spectrum."""
        with torch.autocast(self.spectrum.device.type, enabled=False):
            return self.basis.T @ self.spectrum @ self.basis

    def exact(self) -> NoReturn:
        """No twin: a probability that hangs on these kernels would hang on how a machine rounds cosines."""
        raise ValueError("no exact twin of a kernel held as a spectrum: hold kernels of priors as they are")


class SpectralConv2d(Spectral):
    """`nn.Conv2d` without groups: (B, inputs, H, W) -> (B, outputs, (H + 2 padding - kernel) // stride + 1, ...)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)  # for its start
        super().__init__(conv.weight, conv.bias)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W)"""
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class SpectralConvTranspose2d(Spectral):
    """`nn.ConvTranspose2d` without groups: H -> (H - 1) stride - 2 padding + kernel + output_padding."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        output_padding: int = 0,
        bias: bool = True,
    ) -> None:
        conv = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, output_padding, bias=bias)  # for its start
        super().__init__(conv.weight, conv.bias)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W)"""
        return F.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.output_padding)
