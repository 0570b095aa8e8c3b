import pytest
import torch

from lichen.layers.gdn import GDN, PEDESTAL, SimplifiedGDN


def with_random_weights(
    channels: int, inverse: bool = False, kind: type[GDN] | type[SimplifiedGDN] = GDN
) -> GDN | SimplifiedGDN:
    layer = kind(channels, inverse)
    with torch.no_grad():
        layer.beta.copy_(torch.rand(channels) + 0.2)
        layer.gamma.copy_(torch.rand(channels, channels) * 0.3)
    return layer


def test_start() -> None:
    """beta = 1, gamma = 0.1 I: y = x / sqrt(1 + 0.1 x^2), each channel by itself."""
    x = torch.randn(2, 4, 5, 3) * 3
    torch.testing.assert_close(GDN(4)(x), x / (1 + 0.1 * x**2).sqrt())
    torch.testing.assert_close(GDN(4, inverse=True)(x), x * (1 + 0.1 * x**2).sqrt())
    torch.testing.assert_close(SimplifiedGDN(4)(x), x / (1 + 0.1 * x.abs()))
    torch.testing.assert_close(SimplifiedGDN(4, inverse=True)(x), x * (1 + 0.1 * x.abs()))


@pytest.mark.parametrize("inverse", [False, True])
def test_definition(inverse: bool) -> None:
    """The sum over channels, written out, in float64."""
    torch.manual_seed(0)
    layer = with_random_weights(6, inverse).double()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    beta, gamma = layer.beta**2 - PEDESTAL, layer.gamma**2 - PEDESTAL
    y = torch.empty_like(x)
    for i in range(6):
        norm = (beta[i] + sum(gamma[i, j] * x[:, j] ** 2 for j in range(6))).sqrt()
        y[:, i] = x[:, i] * norm if inverse else x[:, i] / norm
    torch.testing.assert_close(layer(x), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("inverse", [False, True])
def test_definition_of_the_simplified_form(inverse: bool) -> None:
    """The sum over channels, written out, in float64."""
    torch.manual_seed(0)
    layer = with_random_weights(6, inverse, SimplifiedGDN).double()
    x = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    beta, gamma = layer.beta**2 - PEDESTAL, layer.gamma**2 - PEDESTAL
    y = torch.empty_like(x)
    for i in range(6):
        norm = beta[i] + sum(gamma[i, j] * x[:, j].abs() for j in range(6))
        y[:, i] = x[:, i] * norm if inverse else x[:, i] / norm
    torch.testing.assert_close(layer(x), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [GDN, SimplifiedGDN])
@pytest.mark.parametrize("inverse", [False, True])
def test_gradient(inverse: bool, kind: type[GDN] | type[SimplifiedGDN]) -> None:
    torch.manual_seed(0)
    layer = with_random_weights(3, inverse, kind).double()
    x = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *inputs: layer(inputs[0]), (x, layer.beta, layer.gamma))


@pytest.mark.parametrize(("kind", "largest"), [(GDN, 1e3), (SimplifiedGDN, 1e6)])
def test_values_stay_positive_and_gradients_push_back(kind: type[GDN] | type[SimplifiedGDN], largest: float) -> None:
    layer = kind(2)
    with torch.no_grad():
        layer.beta.fill_(-1.0)
        layer.gamma.fill_(-1.0)
    x = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1)
    y = layer(x)  # beta = 1e-6, gamma = 0
    torch.testing.assert_close(y, x * largest, rtol=1e-3, atol=0.0)
    y.abs().sum().backward()  # smaller outputs ask for larger beta and gamma: this gradient passes
    assert layer.beta.grad is not None and bool((layer.beta.grad < 0).all())
    assert layer.gamma.grad is not None and bool((layer.gamma.grad < 0).all())
    layer.zero_grad()
    (-layer(x).abs().sum()).backward()  # further below the bounds: this one does not
    assert bool((layer.beta.grad == 0).all())
    assert bool((layer.gamma.grad == 0).all())
