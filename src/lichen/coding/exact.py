"""Exact arithmetic: networks whose outputs are the same bits on every machine.

Numbers are float64 on dyadic grids: weights are multiples of 2^-WEIGHT_BITS, activations multiples of
2^-ACTIVATION_BITS with magnitudes of at most LIMIT. A product is then a multiple of 2^-(WEIGHT_BITS +
ACTIVATION_BITS), and as long as a row of weights has an L1 norm of at most ROW_LIMIT, every partial sum of a matrix
product stays below 2^53 of those units: nothing is ever rounded, so the order of summation, the BLAS, the number of
threads, the batch and the device cannot matter. Every layer snaps its input to the grid, so nothing else has to.

Element by element, IEEE 754 asks for correctly rounded + - * / and sqrt, so those need no grid; `exp` and its
relatives, which IEEE leaves open, are rebuilt here from these operations.

A network is written once, of ordinary float modules. `freeze` turns a copy of it into exact arithmetic by replacing
each module with its exact twin; what the modules are strung together with must be exact already (indexing, reshaping,
concatenation, abs, a single + - * or / an element). `nn.Tanh` and `nn.Sigmoid` become look-ups.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.errors import WeightsError

WEIGHT_BITS = 16
ACTIVATION_BITS = 12
LIMIT = 2.0**13
ROW_LIMIT = 2.0 ** (53 - 13 - WEIGHT_BITS - ACTIVATION_BITS)

Array = npt.NDArray[np.float64]
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def snap(x: Tensor, bits: int = ACTIVATION_BITS) -> Tensor:
    """Round float64 numbers to multiples of 2^-bits (ties to even) and clamp them to +-LIMIT. Any shape."""
    shift = 1.5 * 2.0 ** (52 - bits)  # so large that a double has no digits below 2^-bits left: the addition rounds
    return (x + shift).sub_(shift).clamp_(-LIMIT, LIMIT)


def snap_(x: Tensor, bits: int = ACTIVATION_BITS) -> Tensor:
    """`snap` in place."""
    shift = 1.5 * 2.0 ** (52 - bits)
    return x.add_(shift).sub_(shift).clamp_(-LIMIT, LIMIT)


# ---- Functions that IEEE 754 leaves open, from operations that it does not -------------------------------------------

_LN2_HI = 6.93147180369123816490e-01  # ln 2 with its last 32 bits zero: k * _LN2_HI is exact for |k| < 2^21
_LN2_LO = 1.90821492927058770002e-10


def exp(x: Array) -> Array:
    """e^x elementwise, float64, any shape: the same bits on every machine, within 2 units in the last place.

    Arguments are clamped to +-700. Reduction by multiples of ln 2, then a Taylor series of 14 terms by Horner's rule.
    """
    x = np.clip(np.asarray(x, np.float64), -700.0, 700.0)
    k = np.rint(x * 1.4426950408889634)
    r = (x - k * _LN2_HI) - k * _LN2_LO
    p = np.ones_like(r)
    for n in range(14, 0, -1):
        p = 1.0 + p * (r / float(n))
    return np.ldexp(p, k.astype(np.int32))


def log(x: Array) -> Array:
    """Natural logarithm elementwise of positive finite float64: the same bits on every machine.

    With x = m 2^k and m in [sqrt(1/2), sqrt(2)): k ln 2 + 2 artanh((m - 1) / (m + 1)), its series to the 23rd power.
    """
    m, k = np.frexp(np.asarray(x, np.float64))
    low = m < 0.7071067811865476
    m, k = np.where(low, m * 2.0, m), np.where(low, k - 1, k).astype(np.float64)
    s = (m - 1.0) / (m + 1.0)
    s2, total = s * s, np.zeros_like(s)
    for n in range(23, 0, -2):
        total = total * s2 + 1.0 / float(n)
    return k * _LN2_HI + (k * _LN2_LO + 2.0 * s * total)


def normal_cdf(x: Array) -> Array:
    """Phi(x), the standard normal distribution function, elementwise float64: the same bits on every machine.

    Absolute error below 1e-14. Phi(x) = 1/2 + phi(x) (x + x^3/3 + x^5/(3 5) + ...), a sum of one sign, for |x| < 8.
    """
    x = np.clip(np.asarray(x, np.float64), -8.0, 8.0)
    x2, term, total = x * x, x.copy(), x.copy()
    for n in range(1, 120):
        term = term * (x2 / float(2 * n + 1))
        total = total + term
    density = 0.3989422804014327 * exp(-0.5 * x2)
    return np.clip(0.5 + density * total, 0.0, 1.0)


def tanh(x: Array) -> Array:
    """Hyperbolic tangent elementwise, float64: the same bits on every machine."""
    e = exp(-2.0 * np.abs(x))
    return np.copysign((1.0 - e) / (1.0 + e), x)


def sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) elementwise, float64: the same bits on every machine."""
    e = exp(-np.abs(x))
    return np.where(np.asarray(x) < 0, e, 1.0) / (1.0 + e)


# ---- Modules that mark a place, and their exact twins ----------------------------------------------------------------


class Snap(nn.Module):
    """Marks where numbers return to the grid other than in a layer: the identity in float, `snap` when frozen."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x

    def exact(self) -> nn.Module:
        """The twin that rounds."""
        return ExactSnap()


class ExactSnap(nn.Module):
    """`snap` as a module."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, float64."""
        return snap(x)


class Exp(nn.Module):
    """Elementwise exponential, any shape; exact when frozen."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x.exp()

    def exact(self) -> nn.Module:
        """The twin with `exp` of this file, rounded to a relative 2^-40."""
        return ExactExp()


class ExactExp(nn.Module):
    """`exp` as a module; the result is no grid number: it serves as a factor, and `Snap` follows the product."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, float64."""
        return torch.from_numpy(exp(x.cpu().numpy())).to(x.device)


class ExactLookUp(nn.Module):
    """A bounded function by look-up: the argument is rounded to the grid, and so is the value.

    Beyond +-reach (a whole number) the function has to be constant to the grid's precision.
    """

    table: Tensor

    def __init__(self, function: Callable[[Array], Array], reach: int) -> None:
        super().__init__()
        self.reach = float(reach)
        self.register_buffer("table", _table(function, reach), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, float64."""
        at = (x.clamp(-self.reach, self.reach) + self.reach).mul_(2.0**ACTIVATION_BITS).round_()
        return self.table.take(at.long())


@functools.cache
def _table(function: Callable[[Array], Array], reach: int) -> Tensor:
    unit = 2.0**ACTIVATION_BITS
    x = np.arange(-reach * unit, reach * unit + 1) / unit
    return torch.from_numpy(np.rint(function(x) * unit) / unit)


class ExactLinear(nn.Module):
    """`nn.Linear` on the grid."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        check_rows(weight)
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        return F.linear(snap(x), self.weight, self.bias)


class ExactConv2d(nn.Module):
    """`nn.Conv2d` without groups on the grid, as a matrix product over unfolded windows. (B, C, H, W)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.groups != 1 or conv.dilation != (1, 1) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise ValueError(f"no exact twin of {conv}")
        self.kernel, self.stride, self.padding = conv.kernel_size, conv.stride, conv.padding
        weight = conv.weight.detach().flatten(1)
        check_rows(weight)
        self.register_buffer("weight", weight)
        bias = conv.bias.detach() if conv.bias is not None else weight.new_zeros(len(weight))
        self.register_buffer("bias", bias[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        H, W = (
            (n + 2 * p - k) // s + 1
            for n, p, k, s in zip(x.shape[2:], self.padding, self.kernel, self.stride, strict=True)
        )
        windows = F.unfold(snap(x), self.kernel, padding=self.padding, stride=self.stride)  # (B, C k k, H' W')
        return (self.weight @ windows + self.bias).unflatten(2, (H, W))


class ExactConvTranspose2d(nn.Module):
    """`nn.ConvTranspose2d` without groups on the grid: a matrix product, then a sum of overlapping windows."""

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.ConvTranspose2d) -> None:
        super().__init__()
        if conv.groups != 1 or conv.dilation != (1, 1) or isinstance(conv.padding, str):
            raise ValueError(f"no exact twin of {conv}")
        self.kernel, self.stride, self.padding = conv.kernel_size, conv.stride, conv.padding
        self.output_padding = conv.output_padding
        weight = conv.weight.detach()  # (C, C', k, k)
        check_rows(weight.transpose(0, 1).flatten(1))  # no output sees more than all taps
        self.register_buffer("weight", weight.flatten(1).T.contiguous())  # (C' k k, C)
        bias = conv.bias.detach() if conv.bias is not None else weight.new_zeros(weight.shape[1])
        self.register_buffer("bias", bias[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')"""
        H, W = (
            (n - 1) * s - 2 * p + k + o
            for n, s, p, k, o in zip(
                x.shape[2:], self.stride, self.padding, self.kernel, self.output_padding, strict=True
            )
        )
        windows = self.weight @ snap(x).flatten(2)
        y = F.fold(windows, (H, W), self.kernel, padding=self.padding, stride=self.stride)
        return y + self.bias


# ---- Freezing --------------------------------------------------------------------------------------------------------


def check_rows(weight: Tensor) -> None:
    """Raise WeightsError if a row (out, in) is too large for exact sums."""
    norm = float(weight.abs().sum(1).max())
    if not norm <= ROW_LIMIT:  # NaN too
        raise WeightsError(f"weights with a row of L1 norm {norm:g} are too large for exact coding ({ROW_LIMIT:g})")


def _twin(module: nn.Module) -> nn.Module | None:
    exact = getattr(module, "exact", None)
    if exact is not None:
        return cast(nn.Module, exact())
    match module:
        case nn.Linear():
            return ExactLinear(module.weight, module.bias)
        case nn.ConvTranspose2d():
            return ExactConvTranspose2d(module)
        case nn.Conv2d():
            return ExactConv2d(module)
        case nn.Tanh():
            return ExactLookUp(tanh, 5)  # 1 - tanh(5) and sigmoid(-10) are below half a unit of the grid
        case nn.Sigmoid():
            return ExactLookUp(sigmoid, 10)
    return None  # elementwise modules such as LeakyReLU are exact as they are


def _replace(module: nn.Module) -> None:
    for name, child in module.named_children():
        twin = _twin(child)
        if twin is not None:
            setattr(module, name, twin)
        else:
            _replace(child)


@torch.no_grad()
def freeze(module: ModuleT) -> ModuleT:
    """A copy of a float network in exact arithmetic: parameters snapped to float64, modules replaced by exact twins.

    A module with a method `exact()` gives its own twin (called on the copy, its parameters snapped already). Raises
    WeightsError where a weight is not finite or too large.
    """
    frozen = copy.deepcopy(module).double().requires_grad_(False).eval()
    for name, p in [*frozen.named_parameters(), *frozen.named_buffers()]:
        if not bool(torch.isfinite(p).all()):
            raise WeightsError(f"weights {name} are not finite: this is not a trained network")
        p.copy_(torch.round(p * 2.0**WEIGHT_BITS) * 2.0**-WEIGHT_BITS)
    _replace(frozen)
    return frozen
