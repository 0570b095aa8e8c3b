import torch

from lichen.coding import exact
from lichen.layers.gain import Gain, level_weights, lmbda_between


def test_levels_are_met_and_interpolated() -> None:
    w = level_weights(torch.tensor([1.0, 34.0, 67.0, 100.0, 50.5]), 4)
    assert torch.allclose(w[:4], torch.eye(4), atol=1e-6)
    assert torch.allclose(w[4], torch.tensor([0.0, 0.5, 0.5, 0.0]), atol=1e-6)


def test_lmbda_is_even_in_the_logarithm() -> None:
    lmbda = lmbda_between(torch.tensor([1.0, 50.5, 100.0]), 0.01, 1.0)
    assert torch.allclose(lmbda, torch.tensor([0.01, 0.1, 1.0]))


def test_start() -> None:
    """Steps go with 1 / sqrt(lmbda) about the middle, and the inverse undoes them."""
    gain = Gain(3, 4, 0.01, 1.0)
    g, inverse = gain(torch.tensor([1.0, 50.5, 100.0]))
    assert g.shape == inverse.shape == (3, 1, 1, 3)
    assert torch.allclose(g[:, 0, 0, 0], torch.tensor([0.1, 1.0, 10.0]) ** 0.5, rtol=1e-5)
    assert torch.allclose(g * inverse, torch.ones_like(g))


def test_between_levels_the_geometric_mean() -> None:
    torch.manual_seed(0)
    gain = Gain(3, 3, 0.01, 1.0)
    with torch.no_grad():
        gain.log_gain.normal_()
    g, _ = gain(torch.tensor([1.0, 25.75, 50.5]))
    assert torch.allclose(g[1], (g[0] * g[2]) ** 0.5)


def test_frozen_it_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    gain = Gain(5, 4, 0.0035, 0.0483)
    with torch.no_grad():
        gain.log_gain.normal_()
    frozen = exact.freeze(torch.nn.Sequential(gain))[0]
    quality = torch.linspace(1, 100, 17)
    together, _ = frozen(quality)
    for q, g in zip(quality, together, strict=True):
        assert torch.equal(frozen(q[None])[0][0], g)
    assert torch.allclose(together.float(), gain(quality)[0], rtol=1e-3)
