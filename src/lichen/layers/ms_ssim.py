"""MS-SSIM as something to minimise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lichen.errors import LichenError

NEEDED = "MS-SSIM needs the package pytorch-msssim: pip install 'lichen[train]'"
"""Says what is missing."""

WINDOW = 11  # of the Gaussian, where the picture has room for it at a sixteenth of its size
SIDE_MIN = 33  # pixels; a window of 3

# The first and the last lmbda of CompressAI's networks of Balle et al. 2018 and Minnen et al. 2018, for
# lmbda * 255^2 * MSE + bpp and for lmbda * (1 - MS-SSIM) + bpp.
_MSE, _MS_SSIM = (0.0018, 0.18), (2.40, 220.0)
_EXPONENT = math.log(_MS_SSIM[1] / _MS_SSIM[0]) / math.log(_MSE[1] / _MSE[0])


def window_for(side: int) -> int:
    """The largest window, odd and up to 11, that fits five scales of a picture of this shorter side in pixels.

    11 from 161 pixels on, as usual; 9 for 160, 7 for 128, 3 for 64. LichenError below 33 pixels.
    """
    if side < SIDE_MIN:
        raise LichenError(f"MS-SSIM needs {SIDE_MIN} pixels to each side and this crop has {side}: take larger ones")
    return min(WINDOW, (side - 1) // 16 // 2 * 2 + 1)


def ms_ssim_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """1 - MS-SSIM of each picture (B, 3, H, W) in 0..1, the mean of its channels: (B,), in float32 always.

    MS-SSIM is Wang, Simoncelli, Bovik, "Multi-scale structural similarity for image quality assessment", 2003, by the
    package `pytorch-msssim`. A channel of x_hat that at some scale is correlated with its original not at all or the
    wrong way round, as an untrained network's may be, has an MS-SSIM of 0 and no gradient: it is given that of its
    squared error, which pulls it out. LichenError where the package is missing or a side is below 33 pixels.
    """
    try:
        import pytorch_msssim
    except ImportError as e:
        raise LichenError(NEEDED) from e
    window = window_for(min(x.shape[2:]))
    with torch.autocast(x.device.type, enabled=False):
        # Channels last: the package's convolutions, a channel each, then take a third of the time
        original, x_hat = (t.float().contiguous(memory_format=torch.channels_last) for t in (x, x_hat))

        def error(x_hat: Tensor) -> Tensor:
            return 1 - pytorch_msssim.ms_ssim(x_hat, original, data_range=1.0, size_average=False, win_size=window)

        if not x_hat.requires_grad:
            return error(x_hat)
        with torch.enable_grad():
            leaf = x_hat.detach().requires_grad_()
            value = error(leaf)
            (gradient,) = torch.autograd.grad(value.sum(), leaf)
        lost = (gradient == 0).all(-1).all(-1)[..., None, None]
        gradient = torch.where(lost, 2 * (leaf.detach() - original) / leaf[0].numel(), gradient)
        linear = (x_hat * gradient).flatten(1).sum(1)
        return value.detach() + (linear - linear.detach())  # `value`, with this gradient


def ms_ssim_lmbda(lmbda: Tensor) -> Tensor:
    """lmbda for the mean squared error -> lmbda for 1 - MS-SSIM at about the same rate. Any shape.

    Log-uniform between the first and the last networks of Balle et al. 2018 and Minnen et al. 2018 as CompressAI
    trained them (its documentation, "Model zoo, training"): 0.0018 becomes 2.40, 0.18 becomes 220. Those between,
    4.58, 8.73, 16.64, 31.73, 60.50, 115.37, are met within 2 %.
    """
    return _MS_SSIM[0] * (lmbda / _MSE[0]) ** _EXPONENT


def mse_lmbda(lmbda: Tensor) -> Tensor:
    """The inverse of `ms_ssim_lmbda`."""
    return _MSE[0] * (lmbda / _MS_SSIM[0]) ** (1 / _EXPONENT)
