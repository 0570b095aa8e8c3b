import torch

from lichen.layers.soft_quantization import SoftQuantization


def make() -> SoftQuantization:
    torch.manual_seed(0)
    quantization = SoftQuantization(6).double()
    with torch.no_grad():
        quantization.centres.copy_(torch.tensor([0.3, -1.5, 1.9, -0.4, 0.8, -1.9]))  # in no order
    return quantization


def test_start() -> None:
    centres = SoftQuantization(600).centres
    assert -2 <= float(centres.detach().min()) < -1.9
    assert 1.9 < float(centres.detach().max()) <= 2


def test_the_value_is_the_nearest_centre() -> None:
    quantization = make()
    z = 2 * torch.randn(3, 4, 5, dtype=torch.float64)
    q, symbols = quantization(z)
    nearest = (z[..., None] - quantization.centres).abs().argmin(-1)
    assert torch.equal(symbols, nearest)
    torch.testing.assert_close(q, quantization.centres[nearest], rtol=0, atol=1e-12)


def test_the_gradient_is_that_of_the_soft_assignment() -> None:
    quantization = make()
    z = torch.randn(50, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(50, dtype=torch.float64)
    found = torch.autograd.grad((quantization(z)[0] * weights).sum(), [z, quantization.centres])
    d = (z[:, None] - quantization.centres[None]) ** 2
    soft = ((-d).exp() / (-d).exp().sum(1, keepdim=True) * quantization.centres).sum(1)
    wanted = torch.autograd.grad((soft * weights).sum(), [z, quantization.centres])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)


def test_equal_centres_do_no_harm() -> None:
    quantization = make()
    with torch.no_grad():
        quantization.centres.fill_(0.5)
    q, symbols = quantization(torch.randn(9, dtype=torch.float64))
    torch.testing.assert_close(q, torch.full_like(q, 0.5))
    assert bool(((symbols >= 0) & (symbols < 6)).all())
