"""Generalized divisive normalization, the nonlinearity of Balle et al.'s transforms."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.layers.bounds import lower_bound

PEDESTAL = 2.0**-36  # the square of the offset 2^-18 that keeps the gradient of a squared parameter alive at zero


class GDN(nn.Module):
    """y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2) at every position, the inverse multiplies. (B, C, H, W).

    Source: Balle, Laparra, Simoncelli, "Density modeling of images using a generalized normalization
    transformation", ICLR 2016, with the exponents 2 and 1/2; the inverse by a multiplication is that of "End-to-end
    optimized image compression", ICLR 2017.

    `beta` (C,) and `gamma` (C, C) are held as sqrt(value + 2^-36), which keeps values positive and makes steps near
    zero small. beta >= beta_min, gamma >= 0; below these bounds only gradients that push back pass.
    """

    def __init__(self, channels: int, inverse: bool = False, beta_min: float = 1e-6, gamma_init: float = 0.1) -> None:
        super().__init__()
        self.inverse, self.beta_min = inverse, beta_min
        self.beta = nn.Parameter((torch.ones(channels) + PEDESTAL).sqrt())
        self.gamma = nn.Parameter((gamma_init * torch.eye(channels) + PEDESTAL).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)"""
        beta = lower_bound(self.beta, (self.beta_min + PEDESTAL) ** 0.5) ** 2 - PEDESTAL
        gamma = lower_bound(self.gamma, PEDESTAL**0.5) ** 2 - PEDESTAL
        norm = F.conv2d(x * x, gamma[:, :, None, None], beta)
        return x * (norm.sqrt() if self.inverse else norm.rsqrt())
