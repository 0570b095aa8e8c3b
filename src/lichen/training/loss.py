"""What training minimises."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lichen.errors import LichenError
from lichen.layers.ms_ssim import NEEDED, ms_ssim_error, ms_ssim_lmbda, mse_lmbda
from lichen.models.base import Model

DEFAULT_LMBDA = {"mse": 0.013, "ms-ssim": 16.64}


def bits_per_pixel(bits: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Bits of each latent {name: (B,)} of pictures x (B, 3, H, W) -> bits per pixel (B,)."""
    return torch.stack(list(bits.values())).sum(0) / (x.shape[2] * x.shape[3])


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """(B, 3, H, W) in 0..1 -> mean squared error (B,)."""
    return ((x_hat.float() - x) ** 2).flatten(1).mean(1)


LOSS_LIMIT = 60.0
"""Of a crop's loss in the gradient; photographs cause 5 to 20 at any quality."""


def limited_mean(loss: Tensor) -> Tensor:
    """The mean () of losses (B,), whose gradient is that of losses of at most `LOSS_LIMIT`.

    One beyond it has its gradient shortened as much: one crop that a network does badly on cannot undo the rest.
    """
    limited = loss * (LOSS_LIMIT / loss.detach()).clamp(max=1)
    return (limited + (loss - limited).detach()).mean()


def rate_distortion(bpp: Tensor, mse: Tensor, lmbda: Tensor) -> Tensor:
    """(lmbda * 255^2 * mse + bpp) / sqrt(lmbda), the limited mean over the batch; all (B,), mse over pixels in 0..1.

    The loss of Minnen et al. 2018 (section 4), a crop's weight divided by sqrt(lmbda): rate falls about as
    sqrt(1/lmbda), so that a percent of rate counts the same at every quality.
    """
    return limited_mean((lmbda * 255**2 * mse + bpp) / lmbda.sqrt())


def rate_ms_ssim(bpp: Tensor, error: Tensor, lmbda: Tensor) -> Tensor:
    """(lmbda * error + bpp) / sqrt(mse_lmbda(lmbda)), the limited mean over the batch; all (B,), error = 1 - MS-SSIM.

    The loss for MS-SSIM of Minnen et al. 2018 (section 4) and of CompressAI. A rate weighs as it does in
    `rate_distortion`.
    """
    return limited_mean((lmbda * error + bpp) / mse_lmbda(lmbda).sqrt())


class TrainingLoss(nn.Module):
    """A model and what it is trained for, as one module: the engine that averages gradients sees its forward alone."""

    def __init__(self, net: Model, objective: str, lmbda: float) -> None:
        """objective: mse, ms-ssim; a model's `own_loss` goes before it, its `staged` is followed. lmbda: for models of
        one quality.

        LichenError where pytorch_msssim is not installed and MS-SSIM is asked for.
        """
        super().__init__()
        self.net, self.objective, self.lmbda = net, objective, lmbda
        if objective == "ms-ssim" and importlib.util.find_spec("pytorch_msssim") is None:
            raise LichenError(NEEDED)

    def conditions(self, u: Tensor) -> tuple[Tensor | None, Tensor]:
        """u (B,) in 0..1 -> qualities (B,), None for a model of one; lmbda (B,) of the objective."""
        if not self.net.variable_rate:
            return None, torch.full_like(u, self.lmbda)
        quality = 1 + 99 * u
        lmbda = self.net.lmbda_of(quality)
        return quality, ms_ssim_lmbda(lmbda) if self.objective == "ms-ssim" else lmbda

    def forward(self, x: Tensor, quality: Tensor | None, lmbda: Tensor, done: float) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels (B, 3, H, W) in 0..1 -> the loss (), bits per pixel (B,), x_hat (B, 3, H, W).

        done: how far the training is, 0..1.
        """
        if self.net.own_loss is not None:
            return self.net.own_loss(x, quality, lmbda, done)
        helping: Tensor | None = None
        if self.net.staged is not None:
            x_hat, bits, helping = self.net.staged(x, quality, done)
        else:
            x_hat, bits = self.net(x, quality)
        with torch.autocast(x.device.type, enabled=False):
            x_hat, bpp = x_hat.float(), bits_per_pixel(bits, x).float()
            if self.objective == "ms-ssim":
                loss, weight = rate_ms_ssim(bpp, ms_ssim_error(x, x_hat), lmbda), mse_lmbda(lmbda).rsqrt()
            else:
                loss, weight = rate_distortion(bpp, squared_error(x_hat, x), lmbda), lmbda.rsqrt()
            if helping is not None:
                loss = loss + (helping.float() * weight).mean()
            return loss, bpp, x_hat
