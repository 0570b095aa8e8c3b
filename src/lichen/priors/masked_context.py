"""The full masked convolution as a context model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding import exact
from lichen.priors.context import KERNEL, SLOPE, ExactContext, causal_kernel, causal_taps


class FullContext(nn.Module):
    """Masked 5x5 convolution, strictly causal in raster order: y_hat (B, h, w, M) -> phi (B, h, w, 2 M).

    Source: g_cm of Minnen, Balle, Toderici, NeurIPS 2018, table 1; the mask is type A of van den Oord et
    al., "Conditional image generation with PixelCNN decoders", NeurIPS 2016. Only the 12 causal taps are stored.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = len(causal_taps())
        linear = nn.Linear(taps * channels, 2 * channels)  # for its start, which looks at the number of inputs
        self.weight = nn.Parameter(linear.weight.detach().view(2 * channels, channels, taps).clone())  # (2 M, M, 12)
        self.bias = linear.bias  # (2 M,)

    def forward(self, x: Tensor) -> Tensor:
        """All positions at once, zeros outside the picture."""
        phi = F.conv2d(x.permute(0, 3, 1, 2), causal_kernel(self.weight), self.bias, padding=KERNEL // 2)
        return phi.permute(0, 2, 3, 1).to(x.dtype)

    def exact(self) -> nn.Module:
        """The twin that works on gathered neighbours."""
        return ExactFullContext(self)


class ExactFullContext(ExactContext):
    """`FullContext` at some positions, from the latents before them: one matrix product."""

    weight: Tensor
    bias: Tensor
    slope = SLOPE

    def __init__(self, twin: FullContext) -> None:
        super().__init__()
        weight = twin.weight.detach().transpose(1, 2).flatten(1).contiguous()  # (2 M, 12 M): inputs by tap, channel
        exact.check_rows(weight)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", twin.bias.detach())

    def forward(self, past: Tensor, neighbours: Tensor) -> Tensor:
        """past: (rows, M), on the grid; neighbours: (n, 12), the rows of each position's taps -> (n, 2 M)."""
        x = past.index_select(0, neighbours.flatten())
        return F.linear(x.view(len(neighbours), -1), self.weight, self.bias)


def taps_of(kernel: Tensor) -> Tensor:
    """A masked kernel (2 M, M, 5, 5) -> its causal taps (2 M, M, 12)."""
    r = KERNEL // 2
    return torch.stack([kernel[:, :, i + r, j + r] for i, j in causal_taps()], dim=-1)
