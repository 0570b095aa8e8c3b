import hashlib
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lichen.coding import exact
from lichen.errors import WeightsError


def test_exp_log_and_normal_cdf_are_accurate() -> None:
    x = np.linspace(-30, 30, 2001)
    assert np.allclose(exact.exp(x), [math.exp(v) for v in x], rtol=5e-16, atol=0)
    y = np.logspace(-12, 12, 2001)
    assert np.allclose(exact.log(y), [math.log(v) for v in y], rtol=1e-15, atol=1e-16)
    assert np.allclose(exact.normal_cdf(x), [0.5 * math.erfc(-v / math.sqrt(2)) for v in x], rtol=0, atol=1e-14)


def test_exp_log_and_normal_cdf_give_these_very_bits() -> None:
    x = np.linspace(-9, 9, 10007)
    bits = b"".join(f.astype("<f8").tobytes() for f in (exact.exp(x), exact.log(x * x + 1e-3), exact.normal_cdf(x)))
    assert hashlib.sha256(bits).hexdigest()[:16] == "d0f783a8cd3880fa"


def test_tanh_and_sigmoid() -> None:
    x = np.linspace(-30, 30, 2001)
    assert np.allclose(exact.tanh(x), np.tanh(x), rtol=0, atol=3e-16)
    assert np.allclose(exact.sigmoid(x), 1 / (1 + np.exp(-x)), rtol=1e-15, atol=0)
    assert exact.tanh(np.array([-1e3, 0.0, 1e3])).tolist() == [-1, 0, 1]
    assert exact.sigmoid(np.array([0.0, 1e3])).tolist() == [0.5, 1]
    bits = b"".join(f.astype("<f8").tobytes() for f in (exact.tanh(x), exact.sigmoid(x)))
    assert hashlib.sha256(bits).hexdigest()[:16] == "baa572662d9aa26b"


@pytest.mark.parametrize(("module", "function"), [(nn.Tanh(), exact.tanh), (nn.Sigmoid(), exact.sigmoid)])
def test_frozen_they_are_looked_up(module: nn.Module, function: Callable[[exact.Array], exact.Array]) -> None:
    frozen = exact.freeze(nn.Sequential(module))
    x = torch.cat([grid(4000, scale=4.0), torch.tensor([0.0, -5.0, 5.0, 10.0, -10.0, -8192.0, 8192.0])])
    expected = exact.snap(torch.from_numpy(function(x.numpy())))
    assert torch.equal(frozen(x.double()), expected)
    assert torch.equal(frozen(x.double()[:12].view(3, 2, 2)).flatten(), expected[:12])
    assert torch.equal(frozen(x.double() + 2.0**-14), expected)  # the argument is rounded, too
    assert frozen(torch.tensor([1e300, -math.inf], dtype=torch.float64)).tolist() == expected[[-1, -2]].tolist()


def grid(*shape: int, bits: int = exact.ACTIVATION_BITS, scale: float = 1.0, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return exact.snap(scale * torch.randn(*shape, generator=g, dtype=torch.float64), bits)


def test_a_matrix_product_is_the_integer_product_whatever_the_order() -> None:
    x, w = grid(37, 640, scale=300.0), grid(96, 640, bits=exact.WEIGHT_BITS, scale=0.3, seed=1)
    layer = exact.ExactLinear(w, None)
    xi = (x * 2**exact.ACTIVATION_BITS).long().numpy().astype(object)
    wi = (w * 2**exact.WEIGHT_BITS).long().numpy().astype(object)
    units = 2.0 ** -(exact.WEIGHT_BITS + exact.ACTIVATION_BITS)
    expected = torch.from_numpy((xi @ wi.T).astype(np.float64)) * units
    assert torch.equal(layer(x), expected)
    order = torch.randperm(640, generator=torch.Generator().manual_seed(2))
    assert torch.equal(exact.ExactLinear(w[:, order], None)(x[:, order]), expected)
    assert torch.equal(torch.cat([layer(row) for row in x.split(1)]), expected)
    torch.set_num_threads(2)
    assert torch.equal(layer(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_agree_with_their_float_twins(stride: int) -> None:
    torch.manual_seed(0)
    x = grid(2, 6, 12, 8)
    pairs = [
        nn.Conv2d(6, 5, 3 if stride == 1 else 5, stride, 1 if stride == 1 else 2),
        nn.ConvTranspose2d(6, 5, 5, stride, 2, output_padding=stride - 1),
    ]
    for conv in pairs:
        frozen = exact.freeze(nn.Sequential(conv, nn.LeakyReLU()))
        assert isinstance(frozen[0], exact.ExactConv2d | exact.ExactConvTranspose2d)
        expected = nn.functional.leaky_relu(conv(x.float())).double()
        assert frozen(x).shape == expected.shape
        assert torch.allclose(frozen(x), expected, atol=3e-3)


def test_snap_rounds_to_the_grid_and_clamps() -> None:
    x = torch.tensor([0.3, -0.3, 2.5 / 4096, 3.5 / 4096, 1e5, -1e300, float("inf")], dtype=torch.float64)
    expected = [1229 / 4096, -1229 / 4096, 2 / 4096, 4 / 4096, exact.LIMIT, -exact.LIMIT, exact.LIMIT]
    assert exact.snap(x).tolist() == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_weights_that_cannot_be_exact_are_refused(value: float) -> None:
    net = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad():
        net[0].weight[1, 1] = value
    with pytest.raises(WeightsError):
        exact.freeze(net)


def test_freezing_leaves_the_original_alone() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU())
    before = net[0].weight.clone()
    exact.freeze(net)
    assert isinstance(net[0], nn.Linear)
    assert torch.equal(net[0].weight, before)
