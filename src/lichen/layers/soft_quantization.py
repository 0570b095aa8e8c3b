"""Quantization to a few learned values, hard on the way forward and soft on the way back."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lichen.layers.bounds import straight_through


class SoftQuantization(nn.Module):
    """Numbers of any shape -> the nearest of L learned centres, all of which share in its gradient.

        symbol = argmin_l |z - c_l|        hard = c_symbol        soft = sum_l softmax_l(-sigma (z - c_l)^2) c_l

    The result is `hard`, its gradient that of `soft`, in z and in the centres. Source: Mentzer et al., CVPR 2018,
    section 3.1, after Agustsson et al., "Soft-to-hard vector quantization for end-to-end learning compressible
    representations", NIPS 2017.
    """

    def __init__(self, levels: int, sigma: float = 1.0, reach: float = 2.0) -> None:
        """levels: L. Centres start anywhere between -reach and reach."""
        super().__init__()
        self.sigma = sigma
        self.centres = nn.Parameter(torch.empty(levels).uniform_(-reach, reach))  # (L,), in no order

    def symbols(self, z: Tensor) -> Tensor:
        """Any shape -> which centre is nearest, 0..L-1, int64."""
        centres, order = self.centres.detach().to(z.dtype).sort()
        return order[torch.bucketize(z.detach().contiguous(), (centres[1:] + centres[:-1]) / 2)]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Any shape -> the nearest centres and the symbols, both of that shape."""
        symbols, centres = self.symbols(z), self.centres.to(z.dtype)
        shares = torch.softmax(-self.sigma * (z[..., None] - centres) ** 2, dim=-1)
        return straight_through(centres[symbols], (shares * centres).sum(-1)), symbols
