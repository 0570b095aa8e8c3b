"""What training minimises."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def bits_per_pixel(bits: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Bits of each latent {name: (B,)} of pictures x (B, 3, H, W) -> bits per pixel (B,)."""
    return torch.stack(list(bits.values())).sum(0) / (x.shape[2] * x.shape[3])


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 -> mean squared error (B,)."""
    return ((x_hat.float() - x) ** 2).flatten(1).mean(1)


LOSS_LIMIT = 60.0
"""Of a crop; photographs cause 5 to 20 at any quality."""


def rate_distortion(bpp: Tensor, mse: Tensor, lmbda: Tensor) -> Tensor:
    """(lmbda * 255^2 * mse + bpp) / sqrt(lmbda), the mean over the batch; all (B,), mse over pixels in 0..1.

    The loss of Minnen et al. 2018 (section 4), a crop's weight divided by sqrt(lmbda): rate falls about as
    sqrt(1/lmbda), so that a percent of rate counts the same at every quality. A crop beyond `LOSS_LIMIT` counts as if
    it were there, its gradient shortened as much: one crop that a network does badly on cannot undo the rest.
    """
    loss = (lmbda * 255**2 * mse + bpp) / lmbda.sqrt()
    return (loss * (LOSS_LIMIT / loss.detach()).clamp(max=1)).mean()
