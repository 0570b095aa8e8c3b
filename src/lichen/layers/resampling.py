"""Space to depth and back, channels last: no arithmetic, so exact in any number format."""

from __future__ import annotations

from torch import Tensor


def space_to_depth(x: Tensor, r: int) -> Tensor:
    """(B, H, W, C) -> (B, H/r, W/r, r*r*C): each r x r block becomes one pixel, row by row. H and W divide by r."""
    B, H, W, C = x.shape
    return x.reshape(B, H // r, r, W // r, r, C).permute(0, 1, 3, 2, 4, 5).reshape(B, H // r, W // r, r * r * C)


def depth_to_space(x: Tensor, r: int) -> Tensor:
    """(B, H, W, r*r*C) -> (B, r*H, r*W, C): the inverse of `space_to_depth`."""
    B, H, W, C = x.shape
    c = C // (r * r)
    return x.reshape(B, H, W, r, r, c).permute(0, 1, 3, 2, 4, 5).reshape(B, H * r, W * r, c)
