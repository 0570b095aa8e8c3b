import pytest
import torch
import torch.nn.functional as F

from lichen.coding import exact
from lichen.layers.depthwise import Depthwise


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (12, 5)])
def test_depthwise_and_its_gradients_are_those_of_a_convolution(kernel: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    depthwise = Depthwise(4, kernel).double()
    x = torch.randn(2, *size, 4, dtype=torch.float64, requires_grad=True)
    weight, bias = depthwise.weight, depthwise.bias
    wanted = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=kernel // 2, groups=4).permute(0, 2, 3, 1)
    found, toward = depthwise(x), torch.randn(2, *size, 4, dtype=torch.float64)
    assert torch.equal(found, wanted)
    for a, b in zip(*(torch.autograd.grad(y, (x, weight, bias), toward) for y in (found, wanted)), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)


def test_depthwise_trains_in_mixed_precision() -> None:
    torch.manual_seed(0)
    depthwise, x = Depthwise(4, 5), torch.randn(2, 9, 8, 4)
    wanted = torch.autograd.grad(depthwise(x).square().sum(), [*depthwise.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        y = depthwise(x)
    assert y.dtype == torch.bfloat16
    found = torch.autograd.grad(y.float().square().sum(), [*depthwise.parameters()])
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() < 0.03 * b.abs().max()


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_exact_depthwise_twin(kernel: int) -> None:
    torch.manual_seed(0)
    depthwise = Depthwise(5, kernel)
    frozen = exact.freeze(torch.nn.Sequential(depthwise))[0]
    x = exact.snap(torch.randn(2, 6, 9, 5, dtype=torch.float64))
    assert torch.allclose(frozen(x).float(), depthwise(x.float()), atol=1e-3)
    seen = 6 - kernel // 2
    assert torch.equal(frozen(x[:, :, :6])[:, :, :seen], frozen(x)[:, :, :seen])
