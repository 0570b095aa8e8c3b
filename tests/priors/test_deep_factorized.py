import numpy as np
import torch

from lichen.coding.coder import Decoder, Encoder, Meter
from lichen.coding.exact import freeze, snap
from lichen.priors.deep_factorized import (
    REACH,
    DeepFactorized,
    FactorizedPrior,
    cumulative_exact,
    logits_exact,
    tables,
)


def with_random_weights(channels: int, seed: int = 0) -> DeepFactorized:
    """Densities of many shapes: several modes, shifted, between about 1 and 30 wide."""
    torch.manual_seed(seed)
    density = DeepFactorized(channels)
    with torch.no_grad():
        for p in density.matrices:
            p.add_(torch.randn_like(p) * 0.5)
        for p in density.biases:
            p.copy_(torch.randn_like(p) * 3)
        for p in density.factors:
            p.copy_(torch.randn_like(p) * 2)
    return density


def test_is_a_distribution() -> None:
    density = with_random_weights(5).double()
    v = torch.linspace(-400, 400, 8001, dtype=torch.float64).expand(5, 1, -1)
    logits = density.logits(v)
    assert bool((logits.diff() > 0).all())
    z = torch.arange(-4000.0, 4001.0, dtype=torch.float64)[None, :, None, None].expand(1, -1, 1, 5)
    p = density.likelihood(z)
    assert bool((p >= 0).all())
    torch.testing.assert_close(p.sum((0, 1, 2)), torch.ones(5, dtype=torch.float64))


def test_start_is_about_as_wide_as_asked() -> None:
    """init_scale 10: most of the mass within some tens around zero."""
    torch.manual_seed(0)
    p = DeepFactorized(8).likelihood(torch.arange(-40.0, 41.0)[None, :, None, None].expand(1, -1, 1, 8))
    assert bool((p.sum((0, 1, 2)) > 0.9).all())
    assert float(p.detach().max()) < 0.2


def test_likelihood_keeps_digits_on_both_sides() -> None:
    """In float32 the right tail is as good as the left one."""
    density = with_random_weights(4)
    density.update_median()
    z = density.median + torch.arange(-30.0, 31.0)[None, :, None, None]
    single, double = density.likelihood(z), density.double().likelihood(z.double())
    seen = double > 1e-9
    assert float((single / double - 1)[seen].detach().abs().max()) < 1e-3


def test_median_halves_the_mass() -> None:
    density = with_random_weights(20)
    density.update_median()
    c = torch.sigmoid(density.double().logits(density.median[:, None, None]))
    torch.testing.assert_close(c, torch.full_like(c, 0.5), atol=1e-4, rtol=0.0)


def test_forward() -> None:
    density = with_random_weights(3)
    z = (torch.randn(2, 4, 5, 3) * 4).requires_grad_()
    z_hat, bits = density(z)
    v = z_hat - density.median
    torch.testing.assert_close(v, v.round(), atol=1e-4, rtol=0.0)
    assert float((z_hat - z).detach().abs().max()) <= 0.5 + 1e-4
    assert bits.shape == (2,)
    (bits.sum() + z_hat.sum()).backward()
    for name, p in density.named_parameters():
        assert name == "median" or (p.grad is not None and bool((p.grad != 0).any())), name
    assert z.grad is not None and bool((z.grad != 0).all())
    before = density.median.clone()
    with torch.no_grad():
        density.biases[0].add_(1.0)
    density.eval()(z)
    torch.testing.assert_close(density.median, before, atol=0.0, rtol=0.0)  # found anew in training mode alone


def test_bits_are_those_of_the_density() -> None:
    """Noise around integers: the mean of -log2 p(z + u) over many draws, against an integral over u."""
    density = with_random_weights(1)
    density.update_median()
    z = density.median.expand(1, 400, 400, 1)
    _, bits = density(z)
    u = torch.linspace(-0.5, 0.5, 1001)
    p = density.likelihood((density.median + u)[None, :, None, None])
    torch.testing.assert_close(bits[0] / 160000, -torch.log2(p).mean(), rtol=5e-3, atol=0.0)


def test_exact_agrees_with_float() -> None:
    density = with_random_weights(6).double()
    v = torch.linspace(-60, 60, 501, dtype=torch.float64).expand(6, 1, -1)
    logits = density.logits(v)[:, 0].detach().numpy()
    np.testing.assert_allclose(logits_exact(density, v[:, 0].numpy()), logits, rtol=1e-12, atol=1e-12)
    c = cumulative_exact(density, v[:, 0].numpy())
    np.testing.assert_allclose(c, torch.sigmoid(torch.from_numpy(logits)).numpy(), rtol=1e-11, atol=1e-15)


def test_exact_does_not_depend_on_the_batch() -> None:
    density = with_random_weights(6).double()
    v = np.linspace(-60, 60, 500).reshape(1, -1).repeat(6, 0)
    whole = logits_exact(density, v)
    for n in (1, 7, 64):
        parts = [logits_exact(density, v[:, i : i + n]) for i in range(0, 500, n)]
        assert np.array_equal(np.concatenate(parts, 1), whole)


def test_tables_cover_the_mass() -> None:
    density = with_random_weights(12).double()
    density.update_median()
    t = tables(density, density.median.detach().numpy())
    for c in range(12):
        low, high = int(t.low[c]), int(t.high[c])
        assert -REACH <= low <= 0 <= high <= REACH
        z = density.median[c] + torch.arange(low, high + 1, dtype=torch.float64)
        p = density.likelihood(z[None, :, None, None].expand(1, -1, 1, 12))[0, :, 0, c].detach()
        assert 1 - 1.01e-9 <= float(p.sum()) <= 1
        at = int(t.bits_at[c])
        np.testing.assert_allclose(t.bits[at : at + len(p)], -np.log2(np.maximum(p.numpy(), 2.0**-24)), atol=1e-6)
        one = torch.tensor([1.0, -1.0], dtype=torch.float64)
        edges = density.logits((density.median[c] + torch.tensor([low + 0.5, high - 0.5])).expand(12, 1, 2))[c, 0]
        assert bool((edges * one > -21.4164).all())  # no shorter table would do


def test_tables_far_from_the_median() -> None:
    """A median that is far off, and a density wider than a table, still give tables."""
    density = DeepFactorized(2).double()
    with torch.no_grad():
        for p in density.matrices:
            p[1].sub_(8.0)  # very wide
    t = tables(density, np.array([5000.0, 0.0]))
    assert (t.low[0], t.high[0]) == (-REACH, -REACH)
    assert (t.low[1], t.high[1]) == (-REACH, REACH)
    assert all(int(k.min()) >= 1 and int(k.sum()) == 2**24 for k in t.frequencies)


def test_codes_what_it_measures() -> None:
    prior = FactorizedPrior(7)
    prior.y_prior = with_random_weights(7)
    prior.y_prior.part = "y"
    prior.y_prior.update_median()
    y = torch.randn(2, 9, 11, 7) * 6
    y[0, 0, 0, 0], y[1, 2, 3, 4] = 12345.6, -3e5  # escapes
    frozen = prior.frozen()
    encoders = [Encoder(), Encoder()]
    y_hat = frozen.code(encoders, {"y": y}, None, (9, 11))
    assert y_hat.dtype == torch.float64
    assert float((y_hat - y).abs().max()) < 0.51
    decoders = [Decoder(e.finish()) for e in encoders]
    assert torch.equal(frozen.code(decoders, None, None, (9, 11)), y_hat)
    for b in range(2):
        meter = Meter()
        assert torch.equal(frozen.code([meter], {"y": y[b : b + 1]}, None, (9, 11))[0], y_hat[b])
        assert abs(meter.bits["y"] / 8 - len(encoders[b].finish())) < 0.005 * meter.bits["y"] / 8 + 16
    _, bits = prior.eval()(y.clamp(-50, 50))
    assert bits["y"].shape == (2,)


def test_median_is_on_the_grid_when_frozen() -> None:
    density = with_random_weights(4)
    density.update_median()
    median = freeze(torch.nn.Sequential(density))[0].median
    assert torch.equal(median, snap(median))


def test_moments_are_those_of_the_likelihoods() -> None:
    torch.manual_seed(0)
    density = DeepFactorized(3, init_scale=1.0).eval()
    density.update_median()
    steps = torch.arange(-60, 61.0)
    values = density.median + steps[:, None]
    p = density.likelihood(values[None, None])[0, 0]
    expected = ((p * values**2).sum(0) / p.sum(0) - ((p * values).sum(0) / p.sum(0)) ** 2).sqrt()
    mean, deviation = density.moments(60)
    assert mean.shape == deviation.shape == (1, 1, 1, 3)
    assert torch.allclose(deviation[0, 0, 0], expected, rtol=1e-2)
    _, wider = density.moments(240, torch.full((1, 1, 1, 3), 4.0))
    assert torch.allclose(wider, 4 * deviation, rtol=0.05)
