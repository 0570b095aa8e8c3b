"""Depthwise convolution, channels last, that trains on processors as fast as it runs.

On processors oneDNN has a fast gradient for depthwise kernels of 3x3 alone: that of a 5x5 kernel takes 20 times as
long, more than all else in a block of `layers/blocks.py`. Groups of two channels are slow both ways.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding.exact import check_rows, snap


class Depthwise(nn.Module):
    """Depthwise convolution with zero padding: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, channels: int, kernel: int = 3) -> None:
        """kernel: its size, odd."""
        super().__init__()
        conv = nn.Conv2d(channels, channels, kernel, groups=channels)
        assert conv.bias is not None
        self.weight, self.bias = conv.weight, conv.bias  # (C, 1, k, k), (C,)

    def forward(self, x: Tensor) -> Tensor:
        """Any size."""
        return depthwise(x, self.weight, self.bias)

    def exact(self) -> nn.Module:
        """The twin in exact arithmetic."""
        return ExactDepthwise(self)


class ExactDepthwise(nn.Module):
    """`Depthwise` as a sum of shifted products on the grid, a kernel's tap each."""

    weight: Tensor
    bias: Tensor

    def __init__(self, twin: Depthwise) -> None:
        super().__init__()
        self.k = twin.weight.shape[-1]
        check_rows(twin.weight.detach().flatten(1))
        self.register_buffer("weight", twin.weight.detach().flatten(1).T.contiguous())  # (k k, C)
        self.register_buffer("bias", twin.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)"""
        _, H, W, _ = x.shape
        padded = F.pad(snap(x), (0, 0) + (self.k // 2,) * 4)
        y = self.bias.expand_as(x).clone()
        for tap, weight in enumerate(self.weight):
            i, j = divmod(tap, self.k)
            y.addcmul_(padded[:, i : i + H, j : j + W], weight)
        return y


def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, H, W, C), with zeros outside. weight: (C, 1, k, k), k odd; bias: (C,)."""
    k, channels_first = weight.shape[-1], x.permute(0, 3, 1, 2)
    if k == 3 or x.device.type != "cpu":
        y = F.conv2d(channels_first, weight, bias, padding=k // 2, groups=len(weight))
    else:
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        y = _InThrees.apply(*(t.to(dtype) for t in (channels_first, weight, bias)))
    return y.permute(0, 2, 3, 1)


class _InThrees(torch.autograd.Function):
    """Depthwise convolution whose kernel's gradient is put together from those of 3x3 parts."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x: (B, C, H, W), weight: (C, 1, k, k), bias: (C,) -> (B, C, H, W)"""
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Those of x, weight and bias, where they are asked for."""
        x, weight = ctx.saved_tensors
        k, of_x, of_weight, of_bias = weight.shape[-1], None, None, None
        grad = grad.contiguous(memory_format=torch.channels_last)
        if ctx.needs_input_grad[0]:
            of_x = _convolution_backward(grad, x, weight, k // 2, 0)
        if ctx.needs_input_grad[1]:
            (H, W), parts = x.shape[2:], range(0, k, 3)
            padded = F.pad(x, (k // 2, 3 * len(parts) - 1 - k // 2) * 2)
            part, rows = weight[:, :, :3, :3].contiguous(), []
            for i in parts:
                seen = [padded[:, :, i : i + H + 2, j : j + W + 2] for j in parts]
                seen = [s.contiguous(memory_format=torch.channels_last) for s in seen]
                rows.append(torch.cat([_convolution_backward(grad, s, part, 0, 1) for s in seen], dim=3))
            of_weight = torch.cat(rows, dim=2)[:, :, :k, :k]
        if ctx.needs_input_grad[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_x, of_weight, of_bias


def _convolution_backward(grad: Tensor, x: Tensor, weight: Tensor, padding: int, of: int) -> Tensor:
    """The gradient of a depthwise convolution's input (`of` 0) or weight (1)."""
    size, mask = [padding, padding], [of == 0, of == 1, False]
    found: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], size, [1, 1], False, [0, 0], len(weight), mask
    )
    return found[of]
