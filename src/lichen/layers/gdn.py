"""Generalized divisive normalization, the nonlinearity of Balle et al.'s transforms, in two forms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.layers.bounds import lower_bound

PEDESTAL = 2.0**-36  # the square of the offset 2^-18 that keeps the gradient of a squared parameter alive at zero


class Pool(nn.Module):
    """beta_i + sum_j gamma_ij v_j at every position, (B, C, H, W).

    `beta` (C,) and `gamma` (C, C) are held as sqrt(value + 2^-36), which keeps values positive and makes steps near
    zero small. beta >= beta_min, gamma >= 0; below these bounds only gradients that push back pass.
    """

    def __init__(self, channels: int, beta_min: float, gamma_init: float) -> None:
        super().__init__()
        self.beta_min = beta_min
        self.beta = nn.Parameter((torch.ones(channels) + PEDESTAL).sqrt())
        self.gamma = nn.Parameter((gamma_init * torch.eye(channels) + PEDESTAL).sqrt())

    def pool(self, v: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        beta = lower_bound(self.beta, (self.beta_min + PEDESTAL) ** 0.5) ** 2 - PEDESTAL
        gamma = lower_bound(self.gamma, PEDESTAL**0.5) ** 2 - PEDESTAL
        return F.conv2d(v, gamma[:, :, None, None], beta)


class GDN(Pool):
    """y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2) at every position, the inverse multiplies. (B, C, H, W).

    Source: Balle, Laparra, Simoncelli, "Density modeling of images using a generalized normalization
    transformation", ICLR 2016, with the exponents 2 and 1/2; the inverse by a multiplication is that of "End-to-end
    optimized image compression", ICLR 2017.
    """

    def __init__(self, channels: int, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1) -> None:
        super().__init__(channels, beta_min, gamma_init)
        self.inverse = inverse

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        norm = self.pool(x * x)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())


class SimplifiedGDN(Pool):
    """y_i = x_i / (beta_i + sum_j gamma_ij |x_j|) at every position, the inverse multiplies. (B, C, H, W).

    GDN with both exponents 1, without squares and roots. Source: Johnston, Eban, Gordon, Balle, "Computationally
    efficient neural image compression", 2019 (arXiv:1912.08771), section 2; the default of TensorFlow Compression 2.
    """

    def __init__(self, channels: int, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1) -> None:
        super().__init__(channels, beta_min, gamma_init)
        self.inverse = inverse

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        norm = self.pool(x.abs())
        return x * norm if self.inverse else x / norm
