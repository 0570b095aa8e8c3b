from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lichen.coding.exact import freeze
from lichen.layers.spectral_conv import SpectralConv2d, SpectralConvTranspose2d, real_dft

PAIRS: list[tuple[Any, Any]] = [(SpectralConv2d, nn.Conv2d), (SpectralConvTranspose2d, nn.ConvTranspose2d)]


def options(spectral: Any) -> dict[str, int]:
    return {"output_padding": 1} if spectral is SpectralConvTranspose2d else {}


@pytest.mark.parametrize("n", [1, 2, 5, 8, 9])
def test_basis(n: int) -> None:
    """Orthonormal; coefficients of a real signal are those of the orthonormal complex transform, real and imaginary."""
    basis = real_dft(n)
    torch.testing.assert_close(basis @ basis.T, torch.eye(n, dtype=torch.float64))
    v = torch.randn(n, dtype=torch.float64)
    complex_ = torch.fft.rfft(v, norm="ortho")
    found = basis @ v
    torch.testing.assert_close(found[0], complex_[0].real)
    for k in range(1, (n + 1) // 2):
        torch.testing.assert_close(found[2 * k - 1], 2**0.5 * complex_[k].real)
        torch.testing.assert_close(found[2 * k], 2**0.5 * complex_[k].imag)
    if n % 2 == 0:
        torch.testing.assert_close(found[-1], complex_[-1].real)


@pytest.mark.parametrize(("spectral", "plain"), PAIRS)
@pytest.mark.parametrize("bias", [False, True])
def test_starts_as_the_plain_layer_of_the_same_seed(spectral: Any, plain: Any, bias: bool) -> None:
    torch.manual_seed(0)
    a = spectral(3, 4, 5, 2, 2, bias=bias, **options(spectral))
    torch.manual_seed(0)
    b = plain(3, 4, 5, 2, 2, bias=bias, **options(spectral))
    assert [k for k, _ in a.named_parameters()] == (["spectrum", "bias"] if bias else ["spectrum"])
    assert not torch.allclose(a.spectrum, b.weight, atol=0.01)
    torch.testing.assert_close(a.weight, b.weight)
    x = torch.randn(2, 3, 12, 10)
    torch.testing.assert_close(a(x), b(x))


def test_spectrum_of_a_constant_kernel() -> None:
    """One number of 25: the sum of the taps over 5."""
    layer = SpectralConv2d(1, 1, 5)
    with torch.no_grad():
        layer.spectrum.zero_()
        layer.spectrum[0, 0, 0, 0] = 5.0
    torch.testing.assert_close(layer.weight, torch.ones(1, 1, 5, 5))


def stepped(layer: Any, kernel: Any, optimizer: Any) -> Tensor:
    """The kernel after one step towards a smooth target."""
    opt = optimizer(layer.parameters(), lr=0.01)
    target = torch.outer(torch.hann_window(7)[1:6], torch.hann_window(7)[1:6])
    ((kernel() - target) ** 2).sum().backward()
    opt.step()
    found: Tensor = kernel().detach()
    return found


def test_descent_is_the_same_and_adam_is_not() -> None:
    """The basis is a rotation: gradient descent does not feel it; Adam, which divides by each number's size, does."""
    kernels = {}
    for optimizer in (torch.optim.SGD, torch.optim.Adam):
        for kind in (SpectralConv2d, nn.Conv2d):
            torch.manual_seed(0)
            layer = kind(1, 1, 5, bias=False)
            kernels[optimizer, kind] = stepped(layer, lambda layer=layer: layer.weight, optimizer)
    torch.testing.assert_close(
        kernels[torch.optim.SGD, SpectralConv2d], kernels[torch.optim.SGD, nn.Conv2d], rtol=1e-4, atol=1e-6
    )
    adam = kernels[torch.optim.Adam, SpectralConv2d] - kernels[torch.optim.Adam, nn.Conv2d]
    assert float(adam.abs().max()) > 0.01


def test_limits() -> None:
    with pytest.raises(ValueError, match="no exact twin"):
        freeze(nn.Sequential(SpectralConv2d(2, 2, 3)))
    with pytest.raises(ValueError, match="square"):
        SpectralConv2d(2, 2, (3, 5))  # type: ignore[arg-type]
