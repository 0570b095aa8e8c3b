"""Convolutions that halve and double, as Balle et al. 2018 and those after them use them. (B, C, H, W)."""

from __future__ import annotations

from torch import nn


def conv(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride), rounded up: beside an odd row or column are zeros."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)


def deconv(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    """(B, inputs, H, W) -> (B, outputs, 2 H, 2 W), kernel 5x5."""
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, padding=2, output_padding=1)
