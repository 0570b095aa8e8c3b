"""What a prior expects of a part of the latents, given the parts that are coded before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

Latents = Mapping[str, Tensor]
"""All parts of a picture's latents: "y" (B, h, w, M), and hyper-latents by the names that their bits have."""


@dataclass(frozen=True)
class Conditional:
    """A part v is coded as centre + round(v - centre), at the price of bits(v)."""

    centre: Tensor  # of v's shape, or one that broadcasts to it
    bits: Callable[[Tensor], Tensor]  # v -> bits of the unit bin around each element, differentiable
