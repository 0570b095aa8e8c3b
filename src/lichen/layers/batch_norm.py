"""Batch normalization whose running statistics are saved, averaged and rounded with the weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """(B, C, H, W) -> (B, C, H, W): weight (x - mean) / sqrt(var + 1e-5) + bias, a channel at a time.

    Source: Ioffe, Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015. In training mean and variance are the batch's, and the running ones move towards them by
    1 - decay, but not for a batch that has blown up; in eval mode they are the running ones. These are parameters
    without a gradient and not buffers, so that a weights file in half precision holds exactly what its identity was
    made of, and averages of weights average them.
    """

    def __init__(self, channels: int, decay: float = 0.9) -> None:
        super().__init__()
        self.decay = decay
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.mean = nn.Parameter(torch.zeros(channels), requires_grad=False)
        self.var = nn.Parameter(torch.ones(channels), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Any size; ValueError in training where a channel has one value only."""
        if not self.training:
            return F.batch_norm(x, self.mean, self.var, self.weight, self.bias, eps=1e-5)
        mean, var = self.mean.clone(), self.var.clone()
        y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1 - self.decay, 1e-5)
        with torch.no_grad():
            usable = mean.isfinite().all() & var.isfinite().all()
            self.mean.copy_(torch.where(usable, mean, self.mean))
            self.var.copy_(torch.where(usable, var, self.var))
        return y
