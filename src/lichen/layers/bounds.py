"""Operations whose useful gradient differs from their true one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp(min=bound)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        return grad * ((x >= ctx.bound) | (grad < 0)), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """max(x, bound), any shape; a gradient that would raise x passes even below the bound.

    Source: the reparametrisation of GDN, Balle et al., "Density modeling of images using a generalized
    normalization transformation", ICLR 2016.
    """
    result: Tensor = _LowerBound.apply(x, bound)
    return result


def straight_through(value: Tensor, gradient_to: Tensor) -> Tensor:
    """`value`, with its gradient handed to `gradient_to` unchanged (both of one shape)."""
    return gradient_to + (value - gradient_to).detach()
